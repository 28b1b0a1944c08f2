package watch

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
)

const (
	// maxToldBytes is what a ConfigMap has room for, and maxToldText what that may be
	// unpacked.
	maxToldBytes, maxToldText = 900 << 10, 32 << 20
	toldKey                   = "told"
)

// ToldMap keeps in a ConfigMap what services were told, so that whoever watches next
// tells nothing twice. It is one goroutine's at a time.
type ToldMap struct {
	client          rest.Interface
	namespace, name string
	current         *corev1.ConfigMap // as it was last seen; nil: it was not there
}

// NewToldMap needs the rights to get and update the ConfigMap, and to create it.
func NewToldMap(config *rest.Config, namespace, name string) (*ToldMap, error) {
	client, err := coreClient(config)
	if err != nil {
		return nil, err
	}
	return &ToldMap{client: client, namespace: namespace, name: name}, nil
}

// Load gives what is kept, by row. What cannot be read is nothing: it would be told
// again.
func (m *ToldMap) Load(ctx context.Context) (map[string]Told, error) {
	found := &corev1.ConfigMap{}
	err := m.client.Get().Namespace(m.namespace).Resource("configmaps").Name(m.name).Do(ctx).Into(found)
	switch {
	case apierrors.IsNotFound(err):
		m.current = nil
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("read ConfigMap %s/%s: %w", m.namespace, m.name, err)
	}
	m.current = found
	unpacked, err := gzip.NewReader(bytes.NewReader(found.BinaryData[toldKey]))
	if err != nil {
		return nil, nil //nolint:nilerr // it is not ours, or empty
	}
	kept := map[string]Told{}
	if err := json.NewDecoder(io.LimitReader(unpacked, maxToldText)).Decode(&kept); err != nil {
		return nil, nil //nolint:nilerr // the same
	}
	return kept, nil
}

// Save keeps it. Who has changed it meanwhile wins once: the next Save writes over.
func (m *ToldMap) Save(ctx context.Context, kept map[string]Told) error {
	data, err := packTold(kept)
	if err != nil {
		return err
	}
	saved := &corev1.ConfigMap{}
	if m.current == nil {
		saved.Namespace, saved.Name = m.namespace, m.name
		saved.BinaryData = map[string][]byte{toldKey: data}
		err = m.client.Post().Namespace(m.namespace).Resource("configmaps").Body(saved).Do(ctx).Into(saved)
	} else {
		m.current.DeepCopyInto(saved)
		saved.BinaryData = map[string][]byte{toldKey: data}
		err = m.client.Put().Namespace(m.namespace).Resource("configmaps").Name(m.name).Body(saved).Do(ctx).Into(saved)
	}
	switch {
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err):
		_, _ = m.Load(ctx)
		return fmt.Errorf("write ConfigMap %s/%s: %w", m.namespace, m.name, err)
	case err != nil:
		return fmt.Errorf("write ConfigMap %s/%s: %w", m.namespace, m.name, err)
	}
	m.current = saved
	return nil
}

// packTold leaves out what there is no room for.
func packTold(kept map[string]Told) ([]byte, error) {
	keys := slices.Sorted(maps.Keys(kept))
	for {
		some := make(map[string]Told, len(keys))
		for _, key := range keys {
			some[key] = kept[key]
		}
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		if err := json.NewEncoder(w).Encode(some); err != nil {
			return nil, err
		}
		if err := w.Close(); err != nil {
			return nil, err
		}
		if packed.Len() <= maxToldBytes {
			return packed.Bytes(), nil
		}
		keys = keys[:len(keys)/2]
	}
}
