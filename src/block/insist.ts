const insistMs = 1_000

/**
 * For a fact that must be on the disk before hosts go on: try until it is true, every second; never rejects.
 * @param onFailure told of the first failure
 */
export async function insist(
  attempt: () => boolean | Promise<boolean>,
  onFailure: (error: unknown) => void = () => {},
): Promise<void> {
  for (let told = false; ; ) {
    try {
      if (await attempt()) return
    } catch (error) {
      if (!told) onFailure(error)
      told = true
    }
    await new Promise((resolve) => setTimeout(resolve, insistMs))
  }
}
