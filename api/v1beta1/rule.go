package v1beta1

const (
	// MaxRules is how many parts an all, any or atLeast has. With three levels
	// it bounds the tree; a person reads fewer.
	MaxRules = 16
	// MaxChecks is how many checks one policy has: each is tried on up to 64
	// candidates, within one decision's ten seconds.
	MaxChecks = 32
	// MaxCount bounds atLeast's count; more distinct signers than a person can
	// name are asked for by mistake.
	MaxCount = 16
	// MaxName is how long a check's name is; denials list several.
	MaxName = 63
	// MaxReason is how long a skip's reason is; it is printed in answers.
	MaxReason = 128
)

// Rule is what must hold for an image: exactly one of all, any, atLeast,
// every, skip, or a check. A structural schema knows no recursion, so all and
// any nest three levels deep by types of their own.
type Rule struct {
	// All holds when each of its rules holds.
	All []NestedRule `json:"all,omitempty" union:"rule"`
	// Any holds when one of its rules holds.
	Any []NestedRule `json:"any,omitempty" union:"rule"`
	// AtLeast holds when a number of distinct signers meet its checks.
	AtLeast *AtLeast `json:"atLeast,omitempty" union:"rule"`
	// Every holds when there is a signature of the check's scheme and each one
	// passes the check.
	Every *Check `json:"every,omitempty" union:"rule"`
	// Skip admits the images without verification.
	Skip  *Skip `json:"skip,omitempty" union:"rule"`
	Check `json:",inline"`
}

// NestedRule is a rule inside all or any.
type NestedRule struct {
	// All holds when each of its rules holds.
	All []InnerRule `json:"all,omitempty" union:"rule"`
	// Any holds when one of its rules holds.
	Any []InnerRule `json:"any,omitempty" union:"rule"`
	// AtLeast holds when a number of distinct signers meet its checks.
	AtLeast *AtLeast `json:"atLeast,omitempty" union:"rule"`
	// Every holds when there is a signature of the check's scheme and each one
	// passes the check.
	Every *Check `json:"every,omitempty" union:"rule"`
	Check `json:",inline"`
}

// InnerRule is a rule two levels inside all or any; its own all and any take
// checks only.
type InnerRule struct {
	// All holds when each of its checks holds.
	All []Check `json:"all,omitempty" union:"rule"`
	// Any holds when one of its checks holds.
	Any []Check `json:"any,omitempty" union:"rule"`
	// AtLeast holds when a number of distinct signers meet its checks.
	AtLeast *AtLeast `json:"atLeast,omitempty" union:"rule"`
	// Every holds when there is a signature of the check's scheme and each one
	// passes the check.
	Every *Check `json:"every,omitempty" union:"rule"`
	Check `json:",inline"`
}

// AtLeast wants signatures of several distinct signers.
type AtLeast struct {
	// Count is how many distinct signers are wanted. One who signs twice, or
	// whose certificate was issued anew, is one signer.
	Count int `json:"count"`
	// Of are the checks that a signer may meet.
	Of []Check `json:"of"`
}

// Skip admits images without verification. It is the only way to.
type Skip struct {
	// Reason why, for those who read the answer.
	Reason string `json:"reason"`
}

// Check is a named leaf of the tree: one scheme with the trust that it needs.
type Check struct {
	// Name of the check, by which denials and reports call it. Unique in the
	// policy.
	Name string `json:"name,omitempty"`
	// Notation wants a Notary Project signature.
	Notation *Notation `json:"notation,omitempty" union:"rule"`
	// Cosign wants a signature that Cosign made with a key.
	Cosign *Cosign `json:"cosign,omitempty" union:"rule"`
}
