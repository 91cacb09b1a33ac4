package localui

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
)

// addFollow adds what shows the rules at work, and records what they are given:
//
//	GET    /api/v1/trace?source=X&tag=Y   JSON lines, one of each signal from now on, until the reader goes; {} while nothing comes
//	GET    /api/v1/admin/recording        the recording that runs, or the last one
//	POST   /api/v1/admin/recording        starts one: {"sources": ["press1"], "for": "1h", "max_bytes": 67108864}
//	DELETE /api/v1/admin/recording        stops it
func (t *tools) addFollow(inside func(pattern string, f http.HandlerFunc)) {
	if t.tools.Trace != nil {
		inside("GET /api/v1/trace", t.trace)
	}
	if t.tools.StartRecording != nil {
		inside("GET /api/v1/admin/recording", func(w http.ResponseWriter, r *http.Request) {
			if s, ok := t.tools.Recording(); ok {
				answer(w, s, nil)
				return
			}
			http.Error(w, "nothing was recorded since the agent started", http.StatusNotFound)
		})
		inside("POST /api/v1/admin/recording", t.startRecording)
		inside("DELETE /api/v1/admin/recording", func(w http.ResponseWriter, r *http.Request) {
			s, err := t.tools.StopRecording()
			answer(w, s, err)
		})
	}
}

func answer(w http.ResponseWriter, s status.Recording, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(s) // an error is the reader's: it has gone
}

func (t *tools) startRecording(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Sources  []string `json:"sources"`
		For      string   `json:"for"`
		MaxBytes int64    `json:"max_bytes"`
	}
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10))
	d.DisallowUnknownFields()
	if err := d.Decode(&asked); err != nil && !errors.Is(err, io.EOF) {
		http.Error(w, "the request is not understood: "+err.Error(), http.StatusBadRequest)
		return
	}
	req := status.RecordRequest{Sources: asked.Sources, MaxBytes: asked.MaxBytes}
	if asked.For != "" {
		var err error
		if req.For, err = time.ParseDuration(asked.For); err != nil {
			http.Error(w, "for is no duration such as 1h: "+err.Error(), http.StatusBadRequest)
			return
		}
	}
	s, err := t.tools.StartRecording(r.Context(), req)
	answer(w, s, err)
}

// traceBeat is how often a line without news is sent, so that a reader sees that the agent is there and the agent that the
// reader is.
const traceBeat = 10 * time.Second

func (t *tools) trace(w http.ResponseWriter, r *http.Request) {
	out := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	begun := false
	err := t.tools.Trace(r.Context(), r.URL.Query().Get("source"), r.URL.Query().Get("tag"), traceBeat, func(v any) error {
		if v == nil {
			v = struct{}{}
		}
		begun = true
		if err := enc.Encode(v); err != nil {
			return err
		}
		return out.Flush()
	})
	if err != nil && !begun {
		http.Error(w, err.Error(), http.StatusNotFound)
	}
}
