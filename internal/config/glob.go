package config

// glob matches n tokens of a pattern against m of a text, end to end. A star
// stands for any number of tokens, none included; any other token of the
// pattern for one that it fits. One look back to the last star is enough,
// because an earlier star can give nothing that a later one cannot; so the work
// is at most n·m, whatever the pattern.
func glob(n, m int, star func(i int) bool, fits func(i, j int) bool) bool {
	i, j := 0, 0
	lastStar, resume := -1, 0
	for j < m {
		switch {
		case i < n && star(i):
			lastStar, resume = i, j
			i++
		case i < n && fits(i, j):
			i++
			j++
		case lastStar >= 0:
			resume++
			i, j = lastStar+1, resume
		default:
			return false
		}
	}
	for i < n && star(i) {
		i++
	}
	return i == n
}

// globText matches a text in which * stands for any characters, none included.
func globText(pattern, text string) bool {
	return glob(len(pattern), len(text),
		func(i int) bool { return pattern[i] == '*' },
		func(i, j int) bool { return pattern[i] == text[j] })
}
