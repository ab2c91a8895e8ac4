import t from 'tap'
import { Forecast } from '../../src/replication/forecast.js'

/** A level over virtual seconds. */
function watched(level: (second: number) => number, seconds: number, everyMs = 1000): Forecast {
  const forecast = new Forecast()
  for (let atMs = 0; atMs <= seconds * 1000; atMs += everyMs) forecast.note(level(atMs / 1000), 5_000_000 + atMs)
  return forecast
}

t.test('a level that rises steadily is forecast to the second', async (t) => {
  const forecast = watched((second) => 100 * second, 30)
  t.equal(forecast.changePerSecond, 100)
  t.equal(forecast.secondsToReach(10_000), 70)
  t.equal(forecast.secondsToNothing, null, 'what rises is never gone')
  t.equal(forecast.secondsToReach(3000), 0, 'it is there')
})

t.test('a level that falls is gone when its rate says', async (t) => {
  const forecast = watched((second) => 9000 - 100 * second, 30)
  t.equal(forecast.secondsToNothing, 60)
  t.equal(forecast.secondsToReach(10_000), null)
  t.equal(watched(() => 0, 30).secondsToNothing, 0, 'nothing is left already')
})

t.test('a level that stands, or was seen for too short a time, says nothing', async (t) => {
  const still = watched(() => 500, 30)
  t.same([still.secondsToReach(1000), still.secondsToNothing], [null, null])
  const short = watched((second) => 100 * second, 2)
  t.same([short.changePerSecond, short.secondsToReach(1000)], [undefined, null])
  t.same([new Forecast().secondsToReach(1), new Forecast().secondsToNothing], [null, null])
})

t.test('what was longer ago than a minute does not count', async (t) => {
  const forecast = watched((second) => (second < 100 ? 10_000 * second : 1_000_000 - 50 * (second - 100)), 170)
  t.equal(forecast.changePerSecond, -50)
  t.equal(forecast.secondsToReach(2_000_000), null)
})

t.test('noted ten times as often it says the same', async (t) => {
  const rate = watched((second) => 100 * second, 100, 50).changePerSecond!
  t.ok(Math.abs(rate - 100) < 1, `${rate} a second`)
})
