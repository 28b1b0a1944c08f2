package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/countersign-dev/countersign/test/cluster"
	"github.com/countersign-dev/countersign/test/kubeyaml"
)

const (
	crdDir    = "../../charts/countersign/definitions"
	documents = "../../internal/config/testdata"
	group     = "countersign.dev"
)

var update = flag.Bool("update", false, "write the golden files")

// define installs our kinds and waits until they are served.
func (s *scene) define(t *testing.T) {
	t.Helper()
	files, err := filepath.Glob(crdDir + "/*.yaml")
	must(t, err)
	for _, file := range files {
		must(t, s.ApplyFile(t.Context(), file))
	}
	lists, err := discovery.NewDiscoveryClientForConfig(s.Config)
	must(t, err)
	must(t, cluster.Eventually(t.Context(), patience, func(context.Context) error {
		served, err := lists.ServerResourcesForGroupVersion(group + "/v1beta1")
		if err != nil {
			return err
		}
		kinds := 0
		for _, resource := range served.APIResources {
			if !strings.Contains(resource.Name, "/") {
				kinds++
			}
		}
		if kinds != len(files) {
			return fmt.Errorf("%d of %d kinds are served", kinds, len(files))
		}
		return nil
	}))
}

// try asks the API server to take an object, as strictly as kubectl does, and
// gives what it says.
func (s *scene) try(t *testing.T, object *unstructured.Unstructured) error {
	t.Helper()
	return s.Client.Create(t.Context(), object.DeepCopy(), client.DryRunAll, client.FieldValidation("Strict"))
}

// ours gives the objects of a file that are of our kinds; none where it is no YAML.
func ours(path string) []*unstructured.Unstructured {
	objects, err := kubeyaml.Read(path)
	if err != nil {
		return nil
	}
	var list []*unstructured.Unstructured
	for _, object := range objects {
		if object.GetAPIVersion() == group+"/v1beta1" && object.GetName() != "" {
			list = append(list, object)
		}
	}
	return list
}

// TestGoodDocumentsAreTaken by the API server as well.
func TestGoodDocumentsAreTaken(t *testing.T) {
	s := in(t, "taken", nil)
	s.define(t)
	paths, err := filepath.Glob(documents + "/good/*.yaml")
	must(t, err)
	for _, path := range paths {
		objects := ours(path)
		if len(objects) == 0 {
			t.Errorf("%s: nothing is ours", path)
		}
		for _, object := range objects {
			if object.GetKind() == "TrustPolicy" {
				object.SetNamespace("taken")
			}
			if err := s.try(t, object); err != nil {
				t.Errorf("%s: %v", filepath.Base(path), err)
			}
		}
	}
}

// TestBadDocumentsAreRefused at kubectl apply, each with what to do; what the API
// server cannot see is in the object's status instead.
func TestBadDocumentsAreRefused(t *testing.T) {
	s := in(t, "not-taken", nil)
	s.define(t)
	paths, err := filepath.Glob(documents + "/bad/*.yaml")
	must(t, err)
	var got strings.Builder
	refused := 0
	for _, path := range paths {
		for _, object := range ours(path) {
			if object.GetKind() == "TrustPolicy" && object.GetNamespace() != "" {
				object.SetNamespace("not-taken")
			}
			said := "taken; its status says what is wrong"
			if err := s.try(t, object); err != nil {
				refused++
				said = refusal(err)
			}
			fmt.Fprintf(&got, "%s %s:\n  %s\n", filepath.Base(path), object.GetName(), said)
		}
	}
	if refused < 30 {
		t.Errorf("%d are refused", refused)
	}
	const golden = "testdata/refused.golden"
	if *update {
		must(t, os.WriteFile(golden, []byte(got.String()), 0o600))
	}
	want, err := os.ReadFile(golden)
	must(t, err)
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Error(diff)
	}
}

// refusal is what the API server says, in an order of its own each time, in one
// that stays.
func refusal(err error) string {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil || len(status.Status().Details.Causes) == 0 {
		parts := strings.Split(err.Error(), ", unknown field")
		slices.Sort(parts[1:])
		return strings.Join(parts, ", unknown field")
	}
	var lines []string
	for _, cause := range status.Status().Details.Causes {
		lines = append(lines, cause.Field+": "+cause.Message)
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n  ")
}

// TestEveryFieldIsExplained, as far as kubectl explain goes before it repeats
// itself.
func TestEveryFieldIsExplained(t *testing.T) {
	files, err := filepath.Glob(crdDir + "/*.yaml")
	must(t, err)
	for _, file := range files {
		objects, err := kubeyaml.Read(file)
		must(t, err)
		content, err := json.Marshal(objects[0])
		must(t, err)
		if len(content) > 1<<19 {
			t.Errorf("%s: %d bytes are more than an object should have", file, len(content))
		}
		versions, _, err := unstructured.NestedSlice(objects[0].Object, "spec", "versions")
		must(t, err)
		spec, _, err := unstructured.NestedMap(versions[0].(map[string]any), "schema", "openAPIV3Schema", "properties", "spec")
		must(t, err)
		explained(t, filepath.Base(file)+" spec", spec, 0)
	}
}

// explained wants a description of each property, but inside all and any, whose
// rules have the same fields again.
func explained(t *testing.T, path string, schema map[string]any, rules int) {
	t.Helper()
	if description, _ := schema["description"].(string); description == "" && rules < 2 {
		t.Errorf("%s is not explained", path)
	}
	if items, ok := schema["items"].(map[string]any); ok {
		schema = items
	}
	properties, _ := schema["properties"].(map[string]any)
	for name, property := range properties {
		deeper := rules
		switch name {
		case "all", "any", "atLeast", "trustPolicyDoc":
			deeper++
		}
		explained(t, path+"."+name, property.(map[string]any), deeper)
	}
}
