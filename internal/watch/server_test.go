package watch

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

// TestNobodyIsLetInWhileTheAPIServerIsAway: who cannot be asked about is not shown what
// runs, on pages or to programs.
func TestNobodyIsLetInWhileTheAPIServerIsAway(t *testing.T) {
	s, _ := shown(t)
	for _, path := range []string{
		"/", "/forecast", "/image/" + indexDigest.String(), "/api/v1/results", "/api/v1/summary", "/api/v1/forecast",
		"/api/v1/images/" + indexDigest.String(), "/results", "/bulk_sign", "/download",
	} {
		for token, want := range map[string]int{"later": http.StatusServiceUnavailable, "stranger": http.StatusUnauthorized, "": http.StatusUnauthorized} {
			request := httptest.NewRequest(http.MethodGet, path, nil)
			request.Header.Set("Authorization", "Bearer "+token)
			answer := httptest.NewRecorder()
			s.Handler().ServeHTTP(answer, request)
			if answer.Code != want {
				t.Errorf("%s, token %q: %d, want %d", path, token, answer.Code, want)
			}
		}
	}
}

// TestAPageRunsNothingOfOthers, whatever a name in the cluster makes of it.
func TestAPageRunsNothingOfOthers(t *testing.T) {
	s, _ := shown(t)
	for _, path := range []string{"/", "/login", "/api/v1/openapi.json", "/nowhere"} {
		answer := httptest.NewRecorder()
		s.Handler().ServeHTTP(answer, httptest.NewRequest(http.MethodGet, path, nil))
		policy := answer.Header().Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "connect-src 'self'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} {
			if !strings.Contains(policy+";", want+";") {
				t.Errorf("%s: %q lacks %s", path, policy, want)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") || answer.Header().Get("X-Content-Type-Options") != "nosniff" ||
			answer.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", path, answer.Header())
		}
	}
}
