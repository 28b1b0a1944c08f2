package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/telemetry"
)

// logged gives the one line that the attributes make, decoded.
func logged(t *testing.T, attrs ...slog.Attr) (line string, fields map[string]string) {
	t.Helper()
	var out bytes.Buffer
	telemetry.NewLogger(&out, slog.LevelInfo).LogAttrs(t.Context(), slog.LevelInfo, "decided", attrs...)
	line = strings.TrimSuffix(out.String(), "\n")
	if err := json.Unmarshal([]byte(line), &fields); err != nil {
		t.Fatalf("not one JSON line: %v in %q", err, out.String())
	}
	return line, fields
}

func TestHostileTextForgesNoLine(t *testing.T) {
	hostile := "nginx\"}\n{\"level\":\"INFO\",\"msg\":\"trusted\"}\r\x1b[2J\u2028\x00 " + string([]byte{0xff, 0xfe})
	line, fields := logged(t, slog.String("key", hostile), slog.Any("error", errors.New(hostile)))
	for _, forbidden := range []string{"\n", "\r", "\x1b", "\x00", "\u2028"} {
		if strings.Contains(line, forbidden) {
			t.Errorf("the line carries %q", forbidden)
		}
	}
	if fields["msg"] != "decided" || fields["key"] == "" || fields["error"] == "" {
		t.Errorf("fields were lost or forged: %v", fields)
	}
}

func TestNoCredentialIsLogged(t *testing.T) {
	const secret = "s3cr3t-V4lue.0123456789"
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"
	for name, text := range map[string]string{
		"bearer header":    "GET: header Authorization: Bearer " + secret + " refused",
		"basic header":     "sent Basic " + secret,
		"user in URL":      `Get "https://user:` + secret + `@registry.example.com/v2/": EOF`,
		"token in JSON":    `{"access_token":"` + secret + `"}`,
		"token in query":   "POST /oauth2/token?refresh_token=" + secret + "&x=1",
		"SAS signature":    "https://blob.example.com/x?sv=1&sig=" + secret,
		"form":             "client_assertion=" + secret,
		"password":         "login with password: " + secret,
		"bare web token":   "assertion was " + jwt + " and expired",
		"docker's variant": `{"identitytoken": "` + secret + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			line, _ := logged(t, slog.Any("error", fmt.Errorf("ask for a token: %w", errors.New(text))))
			if strings.Contains(line, secret) || strings.Contains(line, jwt) {
				t.Errorf("logged: %s", line)
			}
		})
	}
}

func TestWhatIsNoCredentialIsLoggedAsItIs(t *testing.T) {
	for _, text := range []string{
		"shop.example.com/cart:1.4@sha256:9f2c41d07b6a9f2c41d07b6a9f2c41d07b6a9f2c41d07b6a9f2c41d07b6a9f2c",
		"[shop;sa=builder;secrets=pull]shop.example.com/cart:1.4",
		`Get "https://shop.example.com/v2/cart/manifests/1.4": dial tcp 10.0.0.1:443: connect: connection refused`,
		"x509: certificate signed by unknown authority",
	} {
		if _, fields := logged(t, slog.String("text", text)); fields["text"] != text {
			t.Errorf("%q became %q", text, fields["text"])
		}
	}
}

func TestOneValueIsBounded(t *testing.T) {
	line, _ := logged(t, slog.String("key", strings.Repeat("€", 1<<20)))
	if len(line) > 4<<10 {
		t.Errorf("a line of %d bytes", len(line))
	}
}
