package shared

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/countersign-dev/countersign/internal/store"
	"github.com/countersign-dev/countersign/internal/store/registrytest"
)

// asksNobody waits until a replica that has just started finds all with the server.
func asksNobody(t *testing.T, r *registrytest.Registry, through *store.Shared) {
	t.Helper()
	eventually(t, func() error {
		newReplica(t, r, through).look(t, "v1")
		r.Reset()
		newReplica(t, r, through).look(t, "v1")
		if n := len(r.Requests()); n > 0 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
}

// TestSentinelsLeadToTheNextServer when the first has died.
func TestSentinelsLeadToTheNextServer(t *testing.T) {
	first, second := start(t), start(t)
	second.cli(t, "replicaof", "127.0.0.1", first.port(t))
	eventually(t, func() error {
		if info := first.cli(t, "info", "replication"); !strings.Contains(info, "state=online") {
			return fmt.Errorf("%s", info)
		}
		return nil
	})
	sentinel := &server{address: free(t), dir: t.TempDir()}
	file := filepath.Join(sentinel.dir, "sentinel.conf")
	must(t, os.WriteFile(file, fmt.Appendf(nil, `bind 127.0.0.1
port %s
dir %s
sentinel monitor shared 127.0.0.1 %s 1
sentinel down-after-milliseconds shared 300
sentinel failover-timeout shared 2000
requirepass guarded
`, sentinel.port(t), sentinel.dir, first.port(t)), 0o600))
	sentinel.run(t, file, "--sentinel")

	r := registrytest.Start(t, registrytest.Options{})
	image := signed(t, r, "v1", "an envelope")
	through := shared(t, "redis://"+sentinel.address+"?master_set=shared&sentinel_password=guarded")
	asksNobody(t, r, through)
	must(t, first.process.Process.Kill())
	if d, text := newReplica(t, r, through).look(t, "v1"); d != image.Digest || text != "an envelope" {
		t.Errorf("%s, %q while there is no server", d, text)
	}
	asksNobody(t, r, through)
	if n := len(second.keys(t, "countersign:1:*")); n == 0 {
		t.Error("nothing is at the second")
	}
}

// TestAClusterSharesTheKeys among its nodes.
func TestAClusterSharesTheKeys(t *testing.T) {
	var nodes []*server
	create := []string{"--cluster", "create"}
	for range 3 {
		bus := &server{address: free(t)}
		node := start(t, "--cluster-enabled", "yes", "--cluster-node-timeout", "2000", "--cluster-port", bus.port(t))
		nodes, create = append(nodes, node), append(create, node.address)
	}
	nodes[0].cli(t, append(create, "--cluster-yes")...)
	eventually(t, func() error {
		for _, node := range nodes {
			if info := node.cli(t, "cluster", "info"); !strings.Contains(info, "cluster_state:ok") {
				return fmt.Errorf("%s", info)
			}
		}
		return nil
	})
	r := registrytest.Start(t, registrytest.Options{})
	signed(t, r, "v1", "an envelope")
	asksNobody(t, r, shared(t, "redis://"+nodes[0].address))
	holding := 0
	for _, node := range nodes {
		if len(node.keys(t, "countersign:1:*")) > 0 {
			holding++
		}
	}
	if holding < 2 {
		t.Errorf("%d nodes hold keys", holding)
	}
}
