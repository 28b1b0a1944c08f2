package trust

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
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
	info, err := os.Stat(v.options.Path)
	if err != nil || !info.Mode().IsRegular() || info.Size() > maxKept {
		return kept
	}
	data, err := os.ReadFile(v.options.Path)
	if err != nil {
		return kept
	}
	head, content, _ := bytes.Cut(data, []byte("\n"))
	sum := sha256.Sum256(content)
	var list []keptItem
	if string(head) != hex.EncodeToString(sum[:]) || json.Unmarshal(content, &list) != nil {
		v.options.Log.Warn("what was kept of vaults is damaged", slog.String("file", v.options.Path))
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
	sum := sha256.Sum256(content)
	data := slices.Concat([]byte(hex.EncodeToString(sum[:])), []byte("\n"), content)
	file, err := os.CreateTemp(filepath.Dir(v.options.Path), ".vaults-*")
	if err == nil {
		_, err = file.Write(data)
		err = errors.Join(err, file.Sync(), file.Close())
		if err == nil {
			err = os.Rename(file.Name(), v.options.Path)
		}
		if err != nil {
			_ = os.Remove(file.Name())
		}
	}
	if err != nil {
		v.options.Log.Warn("what vaults hold could not be kept on disk", slog.Any("error", err))
	}
}
