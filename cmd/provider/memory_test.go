package main

import (
	"testing"
	"testing/fstest"
)

func TestTheContainersMemory(t *testing.T) {
	files := func(pairs ...string) fstest.MapFS {
		root := fstest.MapFS{}
		for i := 0; i < len(pairs); i += 2 {
			root[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
		}
		return root
	}
	const half = "536870912\n"
	for name, c := range map[string]struct {
		root fstest.MapFS
		want int64
	}{
		"no control groups":                 {files(), 0},
		"version 2 in a namespace":          {files("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", half), 512 << 20},
		"version 2 without a namespace":     {files("proc/self/cgroup", "0::/kubepods/pod1/c1\n", "sys/fs/cgroup/kubepods/pod1/c1/memory.max", half), 512 << 20},
		"the pod has less":                  {files("proc/self/cgroup", "0::/pod1/c1\n", "sys/fs/cgroup/pod1/c1/memory.max", half, "sys/fs/cgroup/pod1/memory.max", "1048576\n"), 1 << 20},
		"version 2, none":                   {files("proc/self/cgroup", "0::/\n", "sys/fs/cgroup/memory.max", "max\n"), 0},
		"version 1":                         {files("proc/self/cgroup", "5:cpu,cpuacct:/\n4:memory:/docker/c1\n", "sys/fs/cgroup/memory/docker/c1/memory.limit_in_bytes", half), 512 << 20},
		"version 1, mounted at its group":   {files("proc/self/cgroup", "4:memory:/docker/c1\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", half), 512 << 20},
		"version 1, none":                   {files("proc/self/cgroup", "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"), 0},
		"both versions":                     {files("proc/self/cgroup", "4:memory:/\n0::/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes", half, "sys/fs/cgroup/memory.max", "max"), 512 << 20},
		"another controller's own group":    {files("proc/self/cgroup", "1:cpu:/c1\n", "sys/fs/cgroup/memory/c1/memory.limit_in_bytes", half), 0},
		"what is written there is no limit": {files("proc/self/cgroup", "0::/\nnonsense\n", "sys/fs/cgroup/memory.max", "-5"), 0},
	} {
		t.Run(name, func(t *testing.T) {
			if got := containerMemory(c.root); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
	for container, want := range map[int64]int64{64 << 20: 32 << 20, 256 << 20: 128 << 20, 512 << 20: 320 << 20, 1 << 30: 832 << 20, 8 << 30: 7 << 30} {
		if got := goMemory(container); got != want {
			t.Errorf("of %d MiB Go has %d, want %d", container>>20, got>>20, want>>20)
		}
	}
}
