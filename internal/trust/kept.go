package trust

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/countersign-dev/countersign/internal/statefile"
)

// maxKept bounds the file.
const maxKept = 64 << 20

// keptItem is what the file has of one object.
type keptItem struct {
	Key    string    `json:"key"`
	PEM    []byte    `json:"pem"`
	ReadAt time.Time `json:"readAt"`
}

// keyOf tells objects apart, and identities without telling them.
func keyOf(r Reference) string {
	sum := sha256.Sum256([]byte(r.String() + "\n" + r.Identity.ID() + "\n" + strconv.Itoa(r.History)))
	return hex.EncodeToString(sum[:])
}

// restore reads what an earlier process kept. A file that is damaged has nothing.
func (v *Vaults) restore() map[string]keptItem {
	kept := map[string]keptItem{}
	if v.options.Path == "" {
		return kept
	}
	content, err := statefile.Read(v.options.Path, maxKept)
	var list []keptItem
	if err == nil {
		err = json.Unmarshal(content, &list)
	}
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			v.options.Log.Warn("what was kept of vaults cannot be read", slog.Any("error", err))
		}
		return kept
	}
	now := v.options.Now()
	for _, one := range list {
		if !one.ReadAt.After(now.Add(time.Minute)) {
			kept[one.Key] = one
		}
	}
	return kept
}

// save keeps what is in use. That it cannot is no reason not to serve.
func (v *Vaults) save() {
	if v.options.Path == "" {
		return
	}
	v.saving.Lock()
	defer v.saving.Unlock()
	v.mu.Lock()
	var list []keptItem
	for r, i := range v.items {
		if len(i.pem) > 0 {
			list = append(list, keptItem{keyOf(r), i.pem, i.at})
		}
	}
	v.mu.Unlock()
	slices.SortFunc(list, func(a, b keptItem) int { return strings.Compare(a.Key, b.Key) })
	content, _ := json.Marshal(list) // plain types
	if err := statefile.Write(v.options.Path, content); err != nil {
		v.options.Log.Warn("what vaults hold could not be kept on disk", slog.Any("error", err))
	}
}
