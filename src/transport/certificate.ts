import { createHash, X509Certificate } from 'node:crypto'

/** A key and its self-signed certificate, PEM. The key is a secret. */
export interface Certificate {
  readonly key: string
  readonly cert: string
}

const VALIDITY_YEARS = 20

/**
 * A certificate for an agent: EC P-256, self-signed. Nobody checks its names or dates but the fingerprint in the
 * pairing, so it begins a day early for clocks that are behind.
 */
export async function makeCertificate(): Promise<Certificate> {
  // Loaded here alone: it takes a third of a second and an agent needs it once in its life.
  const { PemConverter, X509CertificateGenerator } = await import('@peculiar/x509')
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
  const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
  const notBefore = new Date(Date.now() - 86_400_000)
  const notAfter = new Date(notBefore)
  notAfter.setUTCFullYear(notAfter.getUTCFullYear() + VALIDITY_YEARS)
  const certificate = await X509CertificateGenerator.createSelfSigned(
    { name: 'CN=tidemark agent', notBefore, notAfter, signingAlgorithm: algorithm, keys },
    crypto,
  )
  const key = PemConverter.encode(await crypto.subtle.exportKey('pkcs8', keys.privateKey), PemConverter.PrivateKeyTag)
  return { key, cert: certificate.toString('pem') }
}

/** SHA-256 of the certificate's DER: 64 lower-case hex digits. Takes PEM or DER. */
export function fingerprintOf(certificate: string | Buffer): string {
  return createHash('sha256').update(new X509Certificate(certificate).raw).digest('hex')
}
