package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestEachAttackOfThePageHasTestsWhereItSays, and each number that a test has from L42
// on is on the page.
func TestEachAttackOfThePageHasTestsWhereItSays(t *testing.T) {
	root := filepath.Join("..", "..")
	page, err := os.ReadFile(filepath.Join(root, "docs", "attacks.md"))
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]map[string]bool{} // folders by number
	name := regexp.MustCompile(`(?m)^func Test(L\d\d)[a-z]?_`)
	for _, top := range []string{"internal", "cmd", "test"} {
		err := filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, "_test.go") {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			folder, err := filepath.Rel(root, filepath.Dir(path))
			for _, match := range name.FindAllSubmatch(content, -1) {
				number := string(match[1])
				if found[number] == nil {
					found[number] = map[string]bool{}
				}
				found[number][filepath.ToSlash(folder)] = true
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	listed := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| (L\d\d) \|.*\| ([^|]*) \|$`).FindAllStringSubmatch(string(page), -1) {
		listed[row[1]] = true
		for _, folder := range strings.Split(row[2], ", ") {
			if folder = strings.Trim(folder, "`"); !found[row[1]][folder] {
				t.Errorf("%s: no test in %s", row[1], folder)
			}
		}
	}
	for number := range found {
		if number >= "L42" && !listed[number] {
			t.Errorf("%s is not on the page", number)
		}
	}
}
