import path from 'node:path'
import type { CreatePairing } from '../../api/agent-operations.js'
import type { Command, Context, Typed } from '../command.js'
import { UsageError } from '../failure.js'
import { readSecret } from '../secret-input.js'

export const pairingCommands: Command[] = [
  {
    name: 'pairing create',
    arguments: [],
    options: [
      {
        flags: '--listen HOST:PORT',
        summary: 'https: the address sources reach this agent at (default: as configured)',
      },
      { flags: '--ftp URL', summary: 'an FTP server both sides reach, such as ftp://user@host/folder' },
      { flags: '--inbox DIR', summary: "with --ftp: the server's folder as this machine sees it" },
      { flags: '--password-file FILE', summary: 'with --ftp: the password, instead of in the URL; - reads stdin' },
      { flags: '--folder DIR', summary: 'a folder both sides reach' },
    ],
    usage: '[--listen HOST:PORT] | --ftp URL --inbox DIR [--password-file FILE] | --folder DIR',
    summary: 'At the destination: print the pairing string, a secret, that lets one source send here.',
    example: 'tidemark pairing create --listen backup.example:7443',
    run: async (context, typed) => {
      const body = await pairingRequest(context, typed)
      const created = await context.agent.call<{ pairing: string }>({ method: 'POST', path: ['pairings'], body })
      context.terminal.remark(
        'A secret for one source; there: tidemark destination add NAME --pairing - (and paste it)',
      )
      context.terminal.result(created, [created.pairing])
    },
  },
]

async function pairingRequest(context: Context, typed: Typed): Promise<CreatePairing> {
  const [listen, ftp, inbox, passwordFile, folder] = ['listen', 'ftp', 'inbox', 'password-file', 'folder'].map((name) =>
    typed.option(name),
  )
  if ([listen, ftp, folder].filter((value) => value !== undefined).length > 1) {
    throw new UsageError('--listen, --ftp and --folder exclude each other')
  }
  if (ftp === undefined && inbox !== undefined) throw new UsageError('--inbox needs --ftp')
  if (ftp === undefined && passwordFile !== undefined) throw new UsageError('--password-file needs --ftp')
  if (folder !== undefined) return { kind: 'folder', directory: path.resolve(folder) }
  if (ftp === undefined) return listen === undefined ? { kind: 'https' } : { kind: 'https', listen }
  if (inbox === undefined) throw new UsageError('--ftp needs --inbox')
  const url =
    passwordFile === undefined ? ftp : withPassword(ftp, await readSecret(context, 'pairing create', passwordFile))
  return { kind: 'ftp', url, inbox: path.resolve(inbox) }
}

function withPassword(ftp: string, password: string): string {
  const url = URL.canParse(ftp) ? new URL(ftp) : undefined
  if (!url?.host || !url.username)
    throw new UsageError('--password-file needs a URL with a user: ftp://user@host/folder')
  if (url.password) throw new UsageError('the URL has a password already; give it once')
  url.password = encodeURIComponent(password)
  return url.href
}
