package verifier

import "context"

type afreshKey struct{}

// Afresh has work ask again for all that can change: what tags name, what is
// attached, whether images exist, and what was proved of it. What it finds is
// remembered as ever. Content by digest cannot change, and is not asked for again.
func Afresh(ctx context.Context) context.Context {
	return context.WithValue(ctx, afreshKey{}, true)
}

// IsAfresh reports whether work asks again.
func IsAfresh(ctx context.Context) bool {
	afresh, _ := ctx.Value(afreshKey{}).(bool)
	return afresh
}
