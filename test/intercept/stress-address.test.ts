import t from 'tap'
import { stress } from './stress.js'

// Compiling takes most of it.
t.setTimeout(400_000)

t.test('AddressSanitizer and UBSan find nothing while hosts, journal and grants are at work', (t) =>
  stress(t, 'address'),
)
