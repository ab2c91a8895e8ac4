import t from 'tap'
import { stress } from './stress.js'

// Compiling takes most of it.
t.setTimeout(400_000)

t.test('ThreadSanitizer finds no race while hosts, journal and grants are at work', (t) => stress(t, 'thread'))
