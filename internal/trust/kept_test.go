package trust

import (
	"errors"
	"testing"
	"time"

	"github.com/countersign-dev/countersign/internal/azure"
)

// TestWhatWasKeptCountsOnce: what an earlier process kept is for the start. A vault
// may have withdrawn it since, and an object that is let go and named again must
// not bring it back.
func TestWhatWasKeptCountsOnce(t *testing.T) {
	path := t.TempDir() + "/vaults"
	r := Reference{Vault: "https://kv.vault.azure.net", Kind: Key, Name: "ci", History: 1}
	earlier := New(Options{Credentials: azure.NewCredentials(azure.Options{}), Path: path})
	earlier.items[r.object()] = &item{pem: []byte("a key"), at: time.Now()}
	earlier.save()

	v := New(Options{Credentials: azure.NewCredentials(azure.Options{}), Path: path})
	if m, err := v.Read(r); err != nil || string(m.PEM) != "a key" {
		t.Fatalf("at the start: %q, %v", m.PEM, err)
	}
	v.note(r, nil, &Error{Message: "it is disabled", Withdrawn: true})
	if _, err := v.Read(r); err == nil {
		t.Error("it counts although it was withdrawn")
	}
	delete(v.items, r.object()) // nobody has named it for a while
	var pending *Error
	if m, err := v.Read(r); !errors.As(err, &pending) || !pending.Pending {
		t.Errorf("named again: %q, %v", m.PEM, err)
	}
}
