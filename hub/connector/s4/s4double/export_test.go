package s4double

import "net/http"

// Hold begins a request of a session, which is worked on until release is called.
func (s *System) Hold(cookies []*http.Cookie) (release func()) {
	r := &http.Request{Header: http.Header{}}
	for _, c := range cookies {
		r.AddCookie(c)
	}
	mine, _ := s.enter(r)
	return func() { s.leave(mine) }
}
