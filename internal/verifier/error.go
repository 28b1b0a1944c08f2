package verifier

import "errors"

// Error is the one error of this program. It is made where the cause is known
// and shown once, at the door.
type Error struct {
	// Reason is from the closed list; its Undecided method says whether the
	// error is a "no" or a "could not find out".
	Reason Reason
	// Message says what was found, in one clause without the image's name:
	// "the signature expired on 2026-01-02".
	Message string
	// Remedy says what to do, in one sentence; empty where there is none.
	Remedy string
	// Err is the cause, for logs; its text is never part of an answer's message.
	Err error
}

// Error gives reason, message and cause, for logs.
func (e *Error) Error() string {
	s := string(e.Reason) + ": " + e.Message
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap gives the cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError finds the *Error in err. An error without one is INTERNAL, which is
// undecided: what nobody explained is never a verdict.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Reason: ReasonInternal, Message: "an unexpected error", Err: err}
}
