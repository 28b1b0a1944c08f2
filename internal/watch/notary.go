package watch

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

// Numbers that kube-notary's users know: statuses, and the level of a signer.
var notaryStatus = map[Status]int{
	Status(verifier.StatusTrusted): 0, Status(verifier.StatusExempt): 0, Status(verifier.StatusUntrusted): 1,
	Status(verifier.StatusRefused): 2, Status(verifier.StatusUnknown): 2, Status(verifier.StatusUnsupported): 3,
}

const notaryTrusted = 98

type notaryResult struct {
	Hash         string              `json:"hash"`
	Containers   []notaryContainer   `json:"containers"`
	Verification *notaryVerification `json:"verification,omitempty"`
	Errors       []string            `json:"errors,omitempty"`
}

type notaryContainer struct {
	Namespace   string `json:"namespace"`
	Pod         string `json:"pod"`
	Container   string `json:"container"`
	ContainerID string `json:"containerID"`
	Image       string `json:"image"`
	ImageID     string `json:"imageID"`
}

type notaryVerification struct {
	Level     int    `json:"level"`
	Status    int    `json:"status"`
	Timestamp string `json:"timestamp"`
	Trusted   bool   `json:"trusted"`
}

// kubeNotary serves /results in kube-notary's shape: one element a digest, of which
// the worst status counts.
func (s *Server) kubeNotary(w http.ResponseWriter, _ *http.Request, allowed func(string) bool) {
	byHash := map[string]*notaryResult{}
	worst := map[string]Status{}
	list := []*notaryResult{}
	for _, row := range s.watch.Rows(Filter{Allowed: allowed}) {
		_, hash, _ := strings.Cut(row.Digest, ":")
		result := byHash[hash]
		if result == nil {
			result = &notaryResult{Hash: hash}
			byHash[hash] = result
			list = append(list, result)
		}
		for _, p := range row.Containers {
			result.Containers = append(result.Containers, notaryContainer{row.Namespace, p.Pod, p.Container, p.ContainerID, row.Image, p.ImageID})
		}
		if row.Trouble != "" {
			result.Errors = append(result.Errors, row.Trouble)
		}
		if before, there := worst[hash]; there && !row.Status.worse(before) {
			continue
		}
		worst[hash], result.Verification = row.Status, nil
		if number, verdict := notaryStatus[row.Status]; verdict {
			result.Verification = &notaryVerification{Status: number, Trusted: row.Status.success()}
			if row.Status == Status(verifier.StatusTrusted) {
				result.Verification.Level = notaryTrusted
			}
			if row.CheckedAt != nil {
				result.Verification.Timestamp = row.CheckedAt.UTC().Format(time.RFC3339)
			}
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list)
}

func (s *Server) bulkSign(w http.ResponseWriter, r *http.Request, allowed func(string) bool) {
	format := r.URL.Query().Get("format")
	if format == "" {
		format = FormatNotation
	}
	script, err := Script(s.watch.Rows(Filter{Allowed: allowed}), format)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write([]byte(script))
}

// The signers that a script may be written for.
const (
	FormatNotation = "notation"
	FormatCosign   = "cosign"
)

// Script writes a shell script that signs what runs and has no signature: images that
// are UNKNOWN, by the digest that was looked at, and that are nothing else in any
// namespace. Run as it is, it says what it would do.
func Script(rows []Row, format string) (string, error) {
	command, ok := map[string]string{
		FormatNotation: `notation sign "$1"`,
		FormatCosign:   `cosign sign --key "${COSIGN_KEY:?is the key to sign with}" "$1"`,
	}[format]
	if !ok {
		return "", fmt.Errorf("format %q: write %s or %s", format, FormatNotation, FormatCosign)
	}
	other := map[string]bool{}
	for _, row := range rows {
		if row.Status != Status(verifier.StatusUnknown) && !row.Status.success() {
			other[row.Subject], other[row.Digest] = true, true
		}
	}
	var images []string
	for _, row := range rows {
		ref, err := verifier.ParseReference(row.Image)
		if err != nil || row.Status != Status(verifier.StatusUnknown) || row.Trouble != "" || row.Subject == "" || other[row.Subject] || other[row.Digest] {
			continue
		}
		images = append(images, ref.Name()+"@"+row.Subject)
	}
	slices.Sort(images)
	images = slices.Compact(images)
	var b strings.Builder
	fmt.Fprintf(&b, `#!/bin/sh
# Signs what runs and has no signature, %d images, by their digests. Read it first: a
# signature says that you vouch for each of them.
#
# As it is, it says what it would do. To have it done: APPLY=yes sh THIS_FILE
set -eu
sign() {
  if [ "${APPLY:-}" = yes ]; then
    %s
  else
    printf 'would sign %%s\n' "$1"
  fi
}
`, len(images), command)
	for _, image := range images {
		b.WriteString("sign " + quoted(image) + "\n")
	}
	return b.String(), nil
}

// quoted is a word of the shell that is nothing but itself.
func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
