//go:build race

package watch

// raceFactor is how much slower all is under the race detector.
const raceFactor = 5
