import { startProftpd } from '../fixtures/ftp-servers/proftpd.js'
import { ftpContract } from './ftp-contract.js'

await ftpContract('ftp on proftpd', startProftpd)
