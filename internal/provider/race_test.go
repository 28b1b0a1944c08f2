//go:build race

package provider_test

// raceDetector makes regular expressions some twenty times slower; tests that
// count on numbers do a part of theirs under it.
const raceDetector = true
