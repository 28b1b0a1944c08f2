package store

import "github.com/countersign-dev/countersign/internal/verifier"

// Away implements verifier.Store.
func (v *View) Away(string) *verifier.Error { return nil }
