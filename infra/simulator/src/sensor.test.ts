import { Sensor } from './sensor'

describe('Sensor', () => {
  it('stays within the bounds of its data sheet and is warmer in the afternoon', () => {
    const sensor = new Sensor(3)
    const averageAt = (hour: string) => {
      const readings = Array.from({ length: 50 }, () => sensor.read(new Date(`2026-01-08T${hour}:00:00Z`)))
      for (const { temperature, humidity } of readings) {
        expect(temperature).toBeGreaterThan(-40)
        expect(temperature).toBeLessThan(80)
        expect(humidity).toBeGreaterThan(0)
        expect(humidity).toBeLessThan(100)
      }
      return readings.reduce((sum, { temperature }) => sum + temperature, 0) / readings.length
    }
    expect(averageAt('15')).toBeGreaterThan(averageAt('03') + 2)
  })
})
