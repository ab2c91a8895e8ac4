import { StorageError } from '../block/storage-error.js'
import { endpointFault } from './endpoint-rules.js'
import type { FtpEndpoint } from './pairing.js'

const schemes: Record<string, { readonly tls: FtpEndpoint['tls']; readonly port: number }> = {
  'ftp:': { tls: 'none', port: 21 },
  'ftpes:': { tls: 'explicit', port: 21 },
  'ftps:': { tls: 'implicit', port: 990 },
}

/**
 * `ftp://USER:PASSWORD@HOST:PORT/DIRECTORY`; `ftpes` is explicit TLS, `ftps` implicit. The directory is relative to the
 * login directory; one that begins with two slashes is absolute. No user means anonymous.
 *
 * @param password instead of the URL's, for those who keep it out of their shell's history
 * @throws StorageError BAD_FTP_URL, which does not quote the URL
 */
export function parseFtpUrl(text: string, password?: string): FtpEndpoint {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw badUrl('It is no URL.')
  }
  const scheme = schemes[url.protocol]
  if (!scheme) throw badUrl('It does not begin with ftp://, ftpes:// or ftps://.')
  if (url.search || url.hash) throw badUrl('It has a ? or # part; write %3F or %23 for these characters.')
  const user = decode(url.username)
  const endpoint: FtpEndpoint = {
    kind: 'ftp',
    // URL writes the host of a scheme it does not know as it was written, percent signs and all.
    host: decode(url.hostname).replace(/^\[(.*)\]$/, '$1'),
    port: url.port === '' ? scheme.port : Number(url.port),
    user: user === '' ? 'anonymous' : user,
    password: password ?? (user === '' ? 'anonymous@' : decode(url.password)),
    directory: decode(url.pathname)
      .slice(1)
      .replace(/(.)\/+$/, '$1'),
    tls: scheme.tls,
  }
  const fault = endpointFault(endpoint)
  if (fault) throw badUrl(fault)
  return endpoint
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw badUrl('It has a % that is not followed by two hex digits.')
  }
}

function badUrl(fault: string): StorageError {
  return new StorageError('BAD_FTP_URL', {
    op: 'read',
    object: 'FTP URL',
    hint: `${fault} Write it as ftp://USER:PASSWORD@HOST/DIRECTORY.`,
  })
}
