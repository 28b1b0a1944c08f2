package config

import "strings"

// suggest finds the word that was probably meant, or none.
func suggest(wrong string, known []string) string {
	best, bestDistance := "", 1+len(wrong)/3
	for _, word := range known {
		a, b := strings.ToLower(wrong), strings.ToLower(word)
		d := distance(a, b)
		if len(a) > 3 && (strings.Contains(b, a) || strings.Contains(a, b) && len(b) > 3) {
			d = min(d, 1)
		}
		if d <= bestDistance && (best == "" || d < bestDistance) {
			best, bestDistance = word, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 { // nobody's typo, and quadratic
		return len(a) + len(b)
	}
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// remedyForField says what to do about fields that are unknown where they
// stand and that people have a reason to write.
func remedyForField(path, field string, known []string) string {
	switch field {
	case "status", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "ownerReferences", "finalizers":
		if path == "" || path == "metadata" {
			return "The API server writes it; delete it"
		}
	case "namespaces", "delegate":
		if path == "spec" {
			return "Only a ClusterTrustPolicy has it; a TrustPolicy applies in its own namespace"
		}
	case "skip":
		if strings.HasPrefix(path, "spec.require.") {
			return "Only require itself can be skip; give these images a policy of their own"
		}
	case "all", "any":
		if strings.HasPrefix(path, "spec.require.") {
			return "all and any nest three deep; give the inner part a policy or a level less"
		}
	case "<<":
		return "Merging is not supported; write the fields out"
	}
	if meant := suggest(field, known); meant != "" {
		return "Did you mean " + meant + "?"
	}
	if len(known) == 0 {
		return "It has no fields; write {}"
	}
	return "It can have " + list(known, "and")
}

// remedyForValue does the same for values of an enum.
func remedyForValue(path, value string, known []string) string {
	if value == "skip" && strings.HasSuffix(path, ".level") {
		return "To run images without verification, write require: {skip: {reason: …}}"
	}
	if meant := suggest(value, known); meant != "" {
		return "Did you mean " + meant + "?"
	}
	return "Write " + list(known, "or")
}
