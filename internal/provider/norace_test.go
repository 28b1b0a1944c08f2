//go:build !race

package provider_test

const raceDetector = false
