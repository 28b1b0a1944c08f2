package provider

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRememberedKeysAreBoundedAndRight(t *testing.T) {
	var r requests
	for i := range 2*maxRemembered + 100 {
		key := fmt.Sprintf("[n%d]shop.example.com/image:%d", i%7, i)
		for range 2 {
			got, err := r.parse(key)
			if err != nil || got.Image.Tag != fmt.Sprint(i) || got.Namespace != fmt.Sprintf("n%d", i%7) {
				t.Fatalf("%s: %v %v", key, got, err)
			}
		}
		if n := len(r.young) + len(r.older); n > 2*maxRemembered {
			t.Fatalf("%d keys are remembered", n)
		}
	}
	if first, err := r.parse("[n0]shop.example.com/image:0"); err != nil || first.Image.Tag != "0" {
		t.Errorf("a forgotten key: %v %v", first, err)
	}
	before := len(r.young)
	long := "[shop;secrets=" + strings.Repeat("a.", 120) + "a," + strings.Repeat("b.", 120) + "b,c." + strings.Repeat("d", 60) + "]shop.example.com/image:1"
	got, err := r.parse(long)
	want, wantErr := ParseKey(long)
	if diff := cmp.Diff(want, got); diff != "" || err != nil || wantErr != nil || len(r.young) != before {
		t.Errorf("a long key: %v %v %s", err, wantErr, diff)
	}
	for _, bad := range []string{"", "[Shop]nginx", "no such image"} {
		for range 2 {
			if _, err := r.parse(bad); err == nil {
				t.Errorf("%q is accepted", bad)
			}
		}
	}
}
