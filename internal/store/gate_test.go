package store

import (
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// TestL44_NoAnswerClosesAHostForEver: Retry-After is the registry's to choose.
func TestL44_NoAnswerClosesAHostForEver(t *testing.T) {
	for name, value := range map[string]func() string{
		"68 years": func() string { return "2147483647" },
		"a date":   func() string { return time.Now().AddDate(50, 0, 0).UTC().Format(http.TimeFormat) },
	} {
		for _, status := range []int{http.StatusTooManyRequests, http.StatusServiceUnavailable} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					const host = "registry.example.com"
					c := &client{store: New(Options{}), view: "view", host: host}
					resp := &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {value()}}}
					if !c.closeGate(host, resp) {
						t.Fatal("it is not closed")
					}
					time.Sleep(maxRetryAfter - time.Second)
					if _, closed := c.gate(host); !closed {
						t.Error("it is open too early")
					}
					c.closeGate(host, &http.Response{StatusCode: status, Header: http.Header{"Retry-After": {"1"}}})
					time.Sleep(time.Second + time.Millisecond)
					if _, closed := c.gate(host); closed {
						t.Error("it is closed after the longest time")
					}
				})
			})
		}
	}
}
