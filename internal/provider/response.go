package provider

import (
	"strconv"
	"time"

	"github.com/countersign-dev/countersign/internal/verifier"
)

const (
	// head is what every answer begins with. Gatekeeper checks neither field.
	head = `{"apiVersion":"externaldata.gatekeeper.sh/v1beta1","kind":"ProviderResponse","response":{`
	// valueVersion is the version of Ratify's report that ours is a superset of.
	valueVersion = "0.2.0"
	// maxSystemError bounds the text that Gatekeeper puts into every denial.
	maxSystemError = 4 << 10
	// maxShownKey is how much of a key a text for people shows.
	maxShownKey = 160
	// maxReports bounds one value: Gatekeeper reads it and keeps it whatever its
	// size, and a stranger can attach what he likes to an image.
	maxReports = 32
	// maxText bounds one text in a report.
	maxText = 512
)

// appendVerified writes the answer to a verify request. Decided keys are items.
// Undecided ones are not: Gatekeeper would keep the item, so they are named in
// systemError, which it does not keep, and the template denies what has no item.
func appendVerified(b []byte, answers []answer, now time.Time, trace string) []byte {
	return appendItems(b, answers, appendValue, now, trace)
}

// appendItems writes an item for each decided key, and names the others.
func appendItems(b []byte, answers []answer, value func([]byte, *answer) []byte, now time.Time, trace string) []byte {
	var room [64]byte
	stamp := append(append(room[:0], trace...), `","timestamp":"`...)
	stamp = now.UTC().AppendFormat(stamp, time.RFC3339Nano)
	b = append(append(b, head...), `"items":[`...)
	first, undecided := true, 0
	for i := range answers {
		a := &answers[i]
		if a.undecided != nil {
			undecided++
			continue
		}
		b, first = appendItem(b, a.key, first), false
		b = append(b, `"value":`...)
		b = append(append(b, valueHead...), stamp...)
		if a.written != "" {
			b = append(b, a.written...)
		} else {
			b = value(b, a)
		}
		b = append(b, '}')
	}
	b = append(b, ']')
	if undecided > 0 {
		b = append(b, `,"systemError":`...)
		b = appendString(b, systemError(answers, undecided))
	}
	return append(b, "}}\n"...)
}

// appendMutated writes the answer to a mutate request. A systemError would fail
// every placeholder of the object, so what is undecided is an item's error.
func appendMutated(b []byte, answers []answer, _ time.Time, _ string) []byte {
	b = append(append(b, head...), `"idempotent":true,"items":[`...)
	first := true
	for i := range answers {
		a := &answers[i]
		b, first = appendItem(b, a.key, first), false
		if a.undecided != nil {
			b = append(b, `"error":`...)
			b = appendString(b, string(a.undecided.Reason)+": "+clause(a.undecided))
		} else {
			b = append(b, `"value":`...)
			b = appendString(b, a.value)
		}
		b = append(b, '}')
	}
	return append(b, "]}}\n"...)
}

// appendFailure writes the answer to a request that has none: no items, and a
// systemError, whatever was asked. Never an empty answer, which would admit.
func appendFailure(b []byte, systemError string) []byte {
	b = append(append(b, head...), `"systemError":`...)
	return append(appendText(b, systemError, maxSystemError), "}}\n"...)
}

func appendItem(b []byte, key string, first bool) []byte {
	if !first {
		b = append(b, ',')
	}
	b = append(b, `{"key":`...)
	return append(appendString(b, key), ',')
}

// systemError names the undecided keys, as many as fit.
func systemError(answers []answer, undecided int) string {
	const more = len("; and 1000 more")
	var list []byte
	written := 0
	for i := range answers {
		a := &answers[i]
		if a.undecided == nil {
			continue
		}
		entry := string(a.undecided.Reason) + " " + text(a.key, maxShownKey) + ": " + clause(a.undecided)
		if len(list)+len("; ")+len(entry)+more > maxSystemError {
			break
		}
		if written > 0 {
			list = append(list, "; "...)
		}
		list = append(list, entry...)
		written++
	}
	if rest := undecided - written; rest > 0 {
		list = strconv.AppendInt(append(list, "; and "...), int64(rest), 10)
		list = append(list, " more"...)
	}
	return string(list)
}

// clause is what was found and what to do, without the image, which is named
// beside it.
func clause(e *verifier.Error) string {
	s := text(e.Message, maxText)
	if e.Remedy != "" {
		s += ". " + text(e.Remedy, maxText)
	}
	return s
}

// valueHead is what every value begins with; then come trace id and time, which
// differ each time, and then the rest, which is appendValue's.
const valueHead = `{"version":"` + valueVersion + `","traceID":"`

// appendValue writes the rest of the value of a decided key. All fields are always
// there, because Rego takes a rule that reads a missing field for one that does not
// apply.
func appendValue(b []byte, a *answer) []byte {
	v := &a.verdict
	success := v.Success()
	b = append(b, `","isSuccess":`...)
	b = appendBool(b, success)
	b = append(b, `,"succeeded":`...)
	b = appendBool(b, success)
	b = append(b, `,"verifierReports":[`...)
	b = appendReports(b, a, success)
	b = append(b, `],"status":`...)
	b = appendString(b, string(v.Status()))
	b = append(b, `,"reason":`...)
	b = appendString(b, string(v.Reason()))
	b = append(b, `,"message":`...)
	b = appendString(b, v.Message())
	b = append(b, `,"remedy":`...)
	b = appendText(b, v.Remedy(), maxText)
	b = append(b, `,"image":`...)
	b = appendText(b, a.image, 2*verifier.MaxReferenceLength)
	b = append(b, `,"digest":`...)
	b = appendString(b, string(v.Digest()))
	b = append(b, `,"pinned":`...)
	if v.Digest() == "" {
		b = append(b, `""`...)
	} else {
		b = appendString(b, v.Subject().Pinned())
	}
	b = append(b, `,"policy":`...)
	b = appendString(b, v.Policy())
	b = append(b, `,"audited":`...)
	b = appendString(b, string(v.Audited()))
	return append(b, '}')
}
