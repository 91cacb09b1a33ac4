package console

import (
	"net/http"
	"net/url"

	"github.com/linekeeper/linekeeper/hub/api"
)

// discrepancies lists where the plant and the outside systems disagree, those first about which something has to happen.
func (c *console) discrepancies(r *http.Request) (view, error) {
	q := r.URL.Query()
	if len(q) == 0 {
		q.Set("live", "true")
		r = r.Clone(r.Context())
		r.URL.RawQuery = q.Encode()
	}
	l, older, err := listed[api.Discrepancy](c, r, "/v1/discrepancies", "live", "state", "type", "plant", "erp", "order_no")
	return view{Title: "Discrepancies", Refresh: 10, Data: map[string]any{"List": l, "Older": older, "Live": q.Get("live") == "true", "State": q.Get("state")}}, err
}

// discrepancy shows one with its evidence. It is not renewed by itself: somebody may be writing into its forms.
func (c *console) discrepancy(r *http.Request) (view, error) {
	var d api.DiscrepancyLife
	err := c.ask(r, http.MethodGet, "/v1/discrepancies/"+url.PathEscape(r.PathValue("id")), nil, &d)
	return view{Title: "Discrepancy " + r.PathValue("id"), Data: map[string]any{"D": d, "Live": d.State == "OPEN" || d.State == "HEALING" || d.State == "ESCALATED"}}, err
}

// settleDiscrepancy does what a person decided.
func (c *console) settleDiscrepancy(w http.ResponseWriter, r *http.Request) {
	page := "/discrepancies/" + url.PathEscape(r.PathValue("id"))
	body := map[string]string{"note": r.PostFormValue("note")}
	switch action := r.PostFormValue("action"); action {
	case "undo":
		// Its body has a mark beside the note.
		undo := map[string]any{"note": body["note"], "by_hand": r.PostFormValue("by_hand") != ""}
		if err := c.ask(r, http.MethodPost, "/v1"+page+"/undo", undo, &struct{}{}); err != nil {
			c.fail(w, err)
			return
		}
		http.Redirect(w, r, page, http.StatusSeeOther)
	case "accept", "act":
		c.done(w, r, "/v1"+page+"/"+action, body, page)
	case "assign":
		body["person"] = r.PostFormValue("person")
		c.done(w, r, "/v1"+page+"/assign", body, page)
	default:
		c.fail(w, &refused{code: http.StatusBadRequest, detail: "choose what to do about the discrepancy"})
	}
}
