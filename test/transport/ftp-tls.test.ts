import { startVsftpd } from '../fixtures/ftp-servers/vsftpd.js'
import { ftpContract } from './ftp-contract.js'

await ftpContract('ftp with explicit TLS on vsftpd', (options) => startVsftpd({ ...options, tls: true }))
