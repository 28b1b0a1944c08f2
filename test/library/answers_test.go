package library

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/open-policy-agent/frameworks/constraint/pkg/externaldata"
	"pgregory.net/rapid"

	"github.com/countersign-dev/countersign/test/fake"
)

// TestL21_NothingMatchedIsNotAllowed spoils good answers in every way that comes
// to mind: a Pod runs exactly when every image in it has an item that says an
// allowed status, and nothing in the answer says otherwise.
func TestL21_NothingMatchedIsNotAllowed(t *testing.T) {
	s, _ := withTemplate(t)
	rapid.Check(t, func(r *rapid.T) {
		images := rapid.SliceOfNDistinct(rapid.StringMatching(`registry\.example\.com/[a-c]{1,2}(:1)?`), 1, 3, rapid.ID).Draw(r, "images")
		body := spoiledAnswer(r, images)
		var containers []any
		for i, image := range images {
			containers = append(containers, map[string]any{"name": fmt.Sprintf("c%d", i), "image": image})
		}
		got, err := s.judge(t.Context(), Case{
			Object: map[string]any{
				"apiVersion": "v1", "kind": "Pod",
				"metadata": map[string]any{"name": "p", "namespace": "shop"},
				"spec":     map[string]any{"containers": containers},
			},
			Answer: fake.Answer{Body: body},
		}, kind)
		if err != nil {
			r.Fatal(err)
		}
		if allowed := len(got.Messages) == 0; allowed != explicitYes(body, images) {
			r.Fatalf("allowed: %v\nimages: %q\nanswer: %s\nmessages: %q", allowed, images, body, got.Messages)
		}
	})
}

// explicitYes is the rule of DESIGN.md §6 without Rego: every image has an item
// that says an allowed status, and no part of the answer says no.
func explicitYes(body string, images []string) bool {
	var answer externaldata.ProviderResponse
	if err := json.Unmarshal([]byte(body), &answer); err != nil || answer.Response.SystemError != "" {
		return false
	}
	said := map[string]bool{}
	for _, item := range answer.Response.Items {
		value, _ := item.Value.(map[string]any)
		if status := value["status"]; item.Error != "" || status != "TRUSTED" && status != "EXEMPT" {
			return false
		}
		said[item.Key] = true
	}
	for _, image := range images {
		if !said["[shop]"+image] {
			return false
		}
	}
	return true
}

// spoiledAnswer is a good answer to the images with up to three things wrong.
func spoiledAnswer(r *rapid.T, images []string) string {
	var items []any
	for _, image := range images {
		items = append(items, map[string]any{"key": "[shop]" + image, "value": map[string]any{
			"status": rapid.SampledFrom([]string{"TRUSTED", "EXEMPT"}).Draw(r, "status"), "isSuccess": true, "message": "fine",
		}})
	}
	response := map[string]any{"idempotent": true, "items": items, "systemError": ""}
	answer := map[string]any{"apiVersion": "externaldata.gatekeeper.sh/v1beta1", "kind": "ProviderResponse", "response": response}

	for range rapid.IntRange(0, 3).Draw(r, "wrongs") {
		at := rapid.IntRange(0, len(images)-1).Draw(r, "at")
		item, _ := items[at].(map[string]any)
		if item == nil {
			continue
		}
		value, _ := item["value"].(map[string]any)
		switch rapid.IntRange(0, 13).Draw(r, "wrong") {
		case 0:
			items[at] = anything(r)
		case 1:
			delete(item, rapid.SampledFrom([]string{"key", "value"}).Draw(r, "dropped"))
		case 2:
			item["key"] = anyKey(r, images)
		case 3:
			item["value"] = anything(r)
		case 4:
			item["error"] = rapid.SampledFrom([]any{"", "broken", nil, 7}).Draw(r, "error")
		case 5:
			if value != nil {
				value["status"] = anything(r)
			}
		case 6:
			if value != nil {
				delete(value, "status")
			}
		case 7:
			response["items"] = items[:at]
		case 8:
			response["items"] = append(items[:len(items):len(items)], map[string]any{
				"key": anyKey(r, images), "value": map[string]any{"status": anything(r)},
			})
		case 9:
			response["items"] = anything(r)
		case 10:
			response["systemError"] = rapid.SampledFrom([]any{"", " ", "down", "TIMEOUT [shop]x: x: slow; ", nil, []any{"down"}}).Draw(r, "systemError")
		case 11:
			answer["response"] = anything(r)
		case 12:
			answer[rapid.SampledFrom([]string{"kind", "extra", "Response"}).Draw(r, "field")] = anything(r)
		case 13:
			response[rapid.SampledFrom([]string{"idempotent", "extra"}).Draw(r, "field")] = anything(r)
		}
	}
	body, err := json.Marshal(answer)
	if err != nil {
		r.Fatal(err)
	}
	if rapid.IntRange(0, 9).Draw(r, "cut") == 0 {
		body = body[:rapid.IntRange(1, len(body)).Draw(r, "end")]
	}
	return string(body)
}

// anyKey is a key that was asked, or one that almost was.
func anyKey(r *rapid.T, images []string) any {
	image := rapid.SampledFrom(images).Draw(r, "image")
	return rapid.SampledFrom([]any{
		"[shop]" + image, image, "[bank]" + image, "[shop]" + image + " ", "[Shop]" + image, "", nil, 7, []any{"[shop]" + image},
	}).Draw(r, "key")
}

// anything is a value that JSON has, more often than not one that looks like trust.
func anything(r *rapid.T) any {
	return rapid.SampledFrom([]any{
		nil, true, false, 0, 1, "", "TRUSTED", "trusted", "EXEMPT", "UNSUPPORTED", "UNTRUSTED", "UNKNOWN", "REFUSED",
		[]any{}, []any{"TRUSTED"}, map[string]any{}, map[string]any{"status": "TRUSTED"}, map[string]any{"TRUSTED": true},
		map[string]any{"isSuccess": true}, []any{map[string]any{"status": "TRUSTED"}},
		map[string]any{"items": []any{}}, map[string]any{"systemError": ""},
	}).Draw(r, "anything")
}
