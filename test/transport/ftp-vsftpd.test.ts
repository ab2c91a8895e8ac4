import { startVsftpd } from '../fixtures/ftp-servers/vsftpd.js'
import { ftpContract } from './ftp-contract.js'

await ftpContract('ftp on vsftpd', startVsftpd)
await ftpContract('ftp on vsftpd over IPv6', (options) => startVsftpd({ ...options, ipv6: true }))
