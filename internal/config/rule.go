package config

import (
	api "github.com/countersign-dev/countersign/api/v1beta1"
)

// The words of rules, as documents have them.
const (
	wordAll     = "all"
	wordAny     = "any"
	wordAtLeast = "atLeast"
	wordEvery   = "every"
	wordSkip    = "skip"
	wordCheck   = "check"
)

// rule is a node of the require tree, whichever of the API's types it is of.
type rule struct {
	path  string
	word  string // empty where the document chooses nothing
	parts []rule // of all, any, atLeast and every
	count int
	check api.Check
	skip  *api.Skip
}

// ruleOf unites the three types into which the API unrolls the tree.
func ruleOf(r api.Rule) rule {
	const path = "spec.require"
	if r.Skip != nil {
		return rule{path: path, word: wordSkip, skip: r.Skip, check: r.Check}
	}
	return nodeOf(path, parts(r.All, path+".all", nestedRuleOf), parts(r.Any, path+".any", nestedRuleOf), r.AtLeast, r.Every, r.Check)
}

func nestedRuleOf(r api.NestedRule, path string) rule {
	return nodeOf(path, parts(r.All, path+".all", innerRuleOf), parts(r.Any, path+".any", innerRuleOf), r.AtLeast, r.Every, r.Check)
}

func innerRuleOf(r api.InnerRule, path string) rule {
	return nodeOf(path, parts(r.All, path+".all", checkOf), parts(r.Any, path+".any", checkOf), r.AtLeast, r.Every, r.Check)
}

func checkOf(c api.Check, path string) rule {
	r := rule{path: path, check: c}
	if _, chosen := schemeOf(c); chosen != nil {
		r.word = wordCheck
	}
	return r
}

func nodeOf(path string, all, any []rule, atLeast *api.AtLeast, every *api.Check, check api.Check) rule {
	switch {
	case all != nil:
		return rule{path: path, word: wordAll, parts: all, check: check}
	case any != nil:
		return rule{path: path, word: wordAny, parts: any, check: check}
	case atLeast != nil:
		return rule{path: path, word: wordAtLeast, count: atLeast.Count, parts: parts(atLeast.Of, path+".atLeast.of", checkOf), check: check}
	case every != nil:
		return rule{path: path, word: wordEvery, parts: []rule{checkOf(*every, path+".every")}, check: check}
	default:
		return checkOf(check, path)
	}
}

func parts[T any](elements []T, path string, of func(T, string) rule) []rule {
	var list []rule
	for i, part := range elements {
		list = append(list, of(part, element(path, i)))
	}
	return list
}

// checks lists the leaves in the order of the document.
func (r rule) checks() []rule {
	if r.word == wordCheck {
		return []rule{r}
	}
	var list []rule
	for _, part := range r.parts {
		list = append(list, part.checks()...)
	}
	return list
}
