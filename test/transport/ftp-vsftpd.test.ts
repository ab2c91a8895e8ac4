import { startVsftpd } from '../fixtures/ftp-servers/vsftpd.js'
import { ftpContract } from './ftp-contract.js'

await ftpContract('ftp on vsftpd', startVsftpd)
