package console

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
)

// mappings lists the sets. The page is not renewed by itself, like all that have forms to write into.
func (c *console) mappings(r *http.Request) (view, error) {
	var l list[api.Mapping]
	err := c.ask(r, http.MethodGet, "/v1/mappings", nil, &l)
	return view{Title: "Mappings", Data: l.Items}, err
}

func mappingPath(r *http.Request) string { return "/mappings/" + url.PathEscape(r.PathValue("name")) }

// mappingSet shows a set's versions and its audit trail, and takes a new version on top of the latest.
func (c *console) mappingSet(r *http.Request) (view, error) {
	var m api.MappingLife
	if err := c.ask(r, http.MethodGet, "/v1"+mappingPath(r), nil, &m); err != nil {
		return view{}, err
	}
	file, err := c.text(r, fmt.Sprintf("/v1%s/versions/%d/file", mappingPath(r), m.Latest))
	return view{Title: "Mapping " + m.Name, Data: map[string]any{"M": m, "File": file, "Returnable": returnable(m)}}, err
}

// returnable reports that there is an approved version before the latest approved one.
func returnable(m api.MappingLife) bool {
	approved := 0
	for _, v := range m.Versions {
		switch v.State {
		case "effective", "superseded", "scheduled":
			approved++
		}
	}
	return approved > 1
}

// mappingVersion shows what a version says, what it changes, and what its dry run found.
func (c *console) mappingVersion(r *http.Request) (view, error) {
	var m api.MappingContent
	err := c.ask(r, http.MethodGet, "/v1"+mappingPath(r)+"/versions/"+url.PathEscape(r.PathValue("version")), nil, &m)
	return view{Title: fmt.Sprintf("Mapping %s, version %s", r.PathValue("name"), r.PathValue("version")), Data: m}, err
}

// text asks the API for something that is no JSON.
func (c *console) text(r *http.Request, path string) (string, error) {
	res, err := c.call(r, http.MethodGet, path, nil)
	if err != nil {
		return "", err
	}
	return res.body.String(), nil
}

// addMapping stores a new version out of the form.
func (c *console) addMapping(w http.ResponseWriter, r *http.Request) {
	base, err := strconv.Atoi(r.PostFormValue("base"))
	if err != nil {
		c.fail(w, &refused{code: http.StatusBadRequest, detail: "the form does not say which version it was made on top of: open it again"})
		return
	}
	body := map[string]any{"format": r.PostFormValue("format"), "text": strings.ReplaceAll(r.PostFormValue("text"), "\r\n", "\n"), "base": base,
		"note": r.PostFormValue("note"), "propose": r.PostFormValue("propose") != ""}
	back := "/mappings"
	if name := r.PostFormValue("name"); name != "" {
		back += "/" + url.PathEscape(name)
	}
	c.doMapping(w, r, "/v1/mappings", body, back)
}

// doMapping asks the API to do something about a mapping and leads back to a page.
func (c *console) doMapping(w http.ResponseWriter, r *http.Request, path string, body map[string]any, back string) {
	if err := c.ask(r, http.MethodPost, path, body, &json.RawMessage{}); err != nil {
		c.fail(w, err)
		return
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
}

// from reads a time out of a form. It is in the browser's words and must name a zone.
func from(r *http.Request, body map[string]any) error {
	text := strings.TrimSpace(r.PostFormValue("from"))
	if text == "" {
		return nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return &refused{code: http.StatusBadRequest, detail: fmt.Sprintf("%q is no time with a zone: write it as 2026-11-26T06:00:00+01:00, or leave it empty", text)}
	}
	body["effective_from"] = at
	return nil
}

// decideMapping does what a person decided about a version.
func (c *console) decideMapping(w http.ResponseWriter, r *http.Request) {
	page := mappingPath(r) + "/" + url.PathEscape(r.PathValue("version"))
	path := "/v1" + mappingPath(r) + "/versions/" + url.PathEscape(r.PathValue("version")) + "/"
	body := map[string]any{"note": r.PostFormValue("note")}
	switch action := r.PostFormValue("action"); action {
	case "dry-run":
		days, _ := strconv.Atoi(r.PostFormValue("days")) // 0 is the API's own choice
		body = map[string]any{"days": days}
	case "approve":
		if named := r.PostForm["acknowledge"]; len(named) > 0 {
			body["acknowledge"] = named
		}
		if err := from(r, body); err != nil {
			c.fail(w, err)
			return
		}
	case "propose", "reject":
	default:
		c.fail(w, &refused{code: http.StatusBadRequest, detail: "choose what to do about the version"})
		return
	}
	c.doMapping(w, r, path+r.PostFormValue("action"), body, page)
}

// returnMapping brings the content before back.
func (c *console) returnMapping(w http.ResponseWriter, r *http.Request) {
	base, err := strconv.Atoi(r.PostFormValue("base"))
	if err != nil {
		c.fail(w, &refused{code: http.StatusBadRequest, detail: "the form does not say which version it was made for: open the page again"})
		return
	}
	body := map[string]any{"base": base, "note": r.PostFormValue("note")}
	c.doMapping(w, r, "/v1"+mappingPath(r)+"/return", body, mappingPath(r))
}
