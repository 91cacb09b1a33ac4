package rest

import (
	"encoding/json"
	"net/url"
	"slices"
	"strings"
)

// place reads where an answer says how to go on; empty when it does not.
func place(at *Place, rep *reply, body any) string {
	switch {
	case at.Body != "":
		text, _ := plain(find(body, at.Body))
		return text
	case at.Header != "":
		return rep.header.Get(at.Header)
	}
	return link(rep.header.Values("Link"), at.Link)
}

// link finds the address with a relation in Link headers.
func link(headers []string, rel string) string {
	for _, h := range headers {
		for h != "" {
			_, rest, ok := strings.Cut(h, "<")
			if !ok {
				break
			}
			address, rest, ok := strings.Cut(rest, ">")
			if !ok {
				break
			}
			parameters, after, _ := strings.Cut(rest, "<") // the next link
			for part := range strings.FieldsFuncSeq(parameters, func(r rune) bool { return r == ';' || r == ',' }) {
				name, v, _ := strings.Cut(strings.TrimSpace(part), "=")
				if strings.EqualFold(strings.TrimSpace(name), "rel") && slices.Contains(strings.Fields(strings.Trim(strings.TrimSpace(v), `"`)), rel) {
					return address
				}
			}
			if after == "" {
				break
			}
			h = "<" + after
		}
	}
	return ""
}

// replace puts values into a text, in one go: a value that looks like a placeholder is none.
func replace(text string, values map[string]string, escape func(string) string) string {
	pairs := make([]string, 0, 2*len(values))
	for name, v := range values {
		pairs = append(pairs, name, escape(v))
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// jsonInner is a text as it stands between quotation marks in JSON.
func jsonInner(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		return ""
	}
	return string(b[1 : len(b)-1])
}

// fillURL puts values into an address. A parameter whose value is a placeholder without a value is left out.
func fillURL(address string, values map[string]string) string {
	path, query, _ := strings.Cut(address, "?")
	path = replace(path, values, url.PathEscape)
	var kept []string
	for part := range strings.SplitSeq(query, "&") {
		_, v, _ := strings.Cut(part, "=")
		if filled, ok := values[v]; ok && filled == "" {
			continue
		}
		kept = append(kept, replace(part, values, url.QueryEscape))
	}
	if query = strings.Join(kept, "&"); query != "" {
		path += "?" + query
	}
	return path
}
