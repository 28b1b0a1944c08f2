package binary

import (
	"bytes"
	"encoding/json"
	"sync"
)

// listening is the line that says where the server listens.
type listening struct {
	Msg      string `json:"msg"`
	Provider string `json:"provider"`
	Health   string `json:"health"`
	Metrics  string `json:"metrics"`
}

// log keeps what a process writes, and finds the line that it listens.
type log struct {
	listening chan listening

	mu   sync.Mutex
	all  bytes.Buffer
	rest []byte // a line that has not ended
}

func newLog() *log { return &log{listening: make(chan listening, 1)} }

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all.Write(p)
	l.rest = append(l.rest, p...)
	for {
		line, rest, ended := bytes.Cut(l.rest, []byte("\n"))
		if !ended {
			return len(p), nil
		}
		l.rest = rest
		var found listening
		if json.Unmarshal(line, &found) == nil && found.Msg == "listening" {
			select {
			case l.listening <- found:
			default: // said already
			}
		}
	}
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
