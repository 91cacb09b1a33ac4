package api

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
)

func (s *server) objectRoutes(api huma.API) {
	get(api, "list-object-kinds", "/v1/objects", "Which business objects of which outside systems are read, how many there are, and how far that is", s.listKinds)
	get(api, "list-objects", "/v1/objects/{kind}", "Business objects of a kind as the outside systems hold them, the ones first that changed last", s.listObjects)
	get(api, "get-object", "/v1/objects/{kind}/{erp}/{number}", "One business object with its revisions, what it names and what names it", s.getObject)
}

// Content is a business object. Exactly the field of its kind is set.
type Content struct{ object.Business }

// MarshalJSON writes it as package wire does.
func (c Content) MarshalJSON() ([]byte, error) { return wire.EncodeBusiness(c.Business) }

// UnmarshalJSON reads it strictly.
func (c *Content) UnmarshalJSON(raw []byte) (err error) {
	c.Business, err = wire.DecodeBusiness(raw)
	return err
}

// Schema describes it from the vocabulary itself.
func (Content) Schema(r huma.Registry) *huma.Schema {
	return contentSchema(r, reflect.TypeFor[object.Business]())
}

const decimalPattern = `^-?[0-9]{1,60}(\.[0-9]{1,60})?$`

func contentSchema(r huma.Registry, t reflect.Type) *huma.Schema {
	switch t {
	case reflect.TypeFor[decimal.Decimal](), reflect.TypeFor[decimal.NullDecimal]():
		return ready(&huma.Schema{Type: huma.TypeString, Pattern: decimalPattern, Description: "Decimal text", Examples: []any{"12.5"}})
	case reflect.TypeFor[time.Time]():
		return ready(&huma.Schema{Type: huma.TypeString, Format: "date-time"})
	}
	switch t.Kind() {
	case reflect.Pointer:
		return contentSchema(r, t.Elem())
	case reflect.Slice:
		return ready(&huma.Schema{Type: huma.TypeArray, Items: contentSchema(r, t.Elem())})
	case reflect.Struct:
		return structSchema(r, t)
	case reflect.Bool:
		return ready(&huma.Schema{Type: huma.TypeBoolean})
	case reflect.String:
		return ready(&huma.Schema{Type: huma.TypeString})
	}
	return ready(&huma.Schema{Type: huma.TypeInteger, Format: "int64"})
}

func ready(s *huma.Schema) *huma.Schema {
	s.PrecomputeMessages()
	return s
}

// structSchema registers a struct of the vocabulary under a name of its own and refers to it.
func structSchema(r huma.Registry, t reflect.Type) *huma.Schema {
	name := "Canonical" + t.Name()
	if r.Map()[name] == nil {
		s := &huma.Schema{Type: huma.TypeObject, AdditionalProperties: false, Properties: map[string]*huma.Schema{}}
		r.Map()[name] = s
		for _, f := range wire.BusinessFields(t) {
			x := contentSchema(r, f.Type)
			switch {
			case strings.HasSuffix(f.Name, "_on") || strings.HasSuffix(f.Name, "_date"):
				x.Description = "A date such as 2026-11-26"
			case f.Name == "unit" || strings.HasSuffix(f.Name, "_unit"):
				x.Description = "UN/ECE Recommendation 20"
			case f.Name == "currency":
				x.Description = "ISO 4217"
			case f.Name == "kind" && t == reflect.TypeFor[object.Business]():
				x.Enum = kindWords()
				x.PrecomputeMessages()
				s.Required = append(s.Required, f.Name)
			}
			s.Properties[f.Name] = x
		}
		s.PrecomputeMessages()
	}
	return &huma.Schema{Ref: "#/components/schemas/" + name}
}

var objectKinds = []object.BusinessKind{object.BusinessItem, object.BusinessParty, object.BusinessPurchase, object.BusinessSale, object.BusinessShipment, object.BusinessInvoice,
	object.BusinessCount, object.BusinessMovement}

func kindWords() (all []any) {
	for _, k := range objectKinds {
		all = append(all, string(k))
	}
	return all
}

// ObjectKind is one kind of business objects of one outside system, and how far it is read.
type ObjectKind struct {
	ERP     string     `json:"erp"`
	Kind    string     `json:"kind"`
	Count   int64      `json:"count" doc:"Objects, those that are gone not among them"`
	OKAt    *time.Time `json:"ok_at,omitempty" doc:"When the system answered last"`
	WholeAt *time.Time `json:"whole_at,omitempty" doc:"When the kind was last read from its beginning to its end; absent: it is still being read for the first time"`
	// FailedAt is absent while the system answers.
	FailedAt *time.Time `json:"failed_at,omitempty"`
	Error    string     `json:"error,omitempty"`
}

func (s *server) listKinds(ctx context.Context, _ *struct{}) (*list[ObjectKind], error) {
	rows, err := s.store.BusinessCursors(ctx)
	if err != nil {
		return nil, fail(err, "the kinds of business objects")
	}
	return paged(rows, 0, nil, func(c store.BusinessCursor) ObjectKind {
		return ObjectKind{ERP: c.ERP, Kind: string(c.Kind), Count: c.Objects, OKAt: when(c.OKAt), WholeAt: when(c.WholeAt), FailedAt: when(c.FailedAt), Error: c.Error}
	}), nil
}

// BusinessObject is the newest revision of a business object as its outside system holds it.
type BusinessObject struct {
	ERP       string     `json:"erp"`
	Kind      string     `json:"kind"`
	Key       string     `json:"key" doc:"The system's technical key; its number where it has none"`
	Number    string     `json:"number,omitempty"`
	Reference string     `json:"reference,omitempty"`
	Partner   string     `json:"partner,omitempty"`
	State     string     `json:"state,omitempty"`
	Revision  int64      `json:"revision"`
	Seq       int64      `json:"seq" doc:"Grows with every revision of every object"`
	ChangedAt time.Time  `json:"changed_at" doc:"When the hub stored this revision"`
	GoneAt    *time.Time `json:"gone_at,omitempty" doc:"Since when its system does not list it any more"`
	Object    Content    `json:"object"`
}

func businessObject(o store.BusinessObject) BusinessObject {
	n := o.Object.Names()
	return BusinessObject{ERP: n.ERP, Kind: string(o.Object.Kind), Key: o.Key, Number: n.Number, Reference: n.Reference, Partner: o.Object.Partner(), State: n.State,
		Revision: o.Revision, Seq: o.Seq, ChangedAt: o.ChangedAt, GoneAt: when(o.GoneAt), Object: Content{o.Object}}
}

// KindInput names a kind.
type KindInput struct {
	Kind string `path:"kind" enum:"item,party,purchase_order,sales_order,shipment,invoice,cycle_count,inventory_movement"`
}

type objectsInput struct {
	PageInput
	KindInput
	ERP       string    `query:"erp"`
	Number    string    `query:"number"`
	Reference string    `query:"reference" doc:"The other side's number, or the key of what was written through here"`
	Partner   string    `query:"partner"`
	State     string    `query:"state"`
	Since     time.Time `query:"changed_since" doc:"Only those whose newest revision was stored then or later"`
	After     int64     `query:"after" doc:"Only what was revised after this seq, the oldest first: whoever follows all changes gives the last seq that it has seen"`
	Gone      bool      `query:"gone" doc:"Also those that their system does not list any more"`
}

func (s *server) listObjects(ctx context.Context, in *objectsInput) (*list[BusinessObject], error) {
	rows, err := s.store.Business(ctx, store.BusinessFilter{Kind: in.Kind, ERP: in.ERP, Number: in.Number, Reference: in.Reference, Partner: in.Partner, State: in.State,
		Since: in.Since, After: in.After, Gone: in.Gone}, in.page())
	if err != nil {
		return nil, fail(err, "the list of business objects")
	}
	return paged(rows, in.Limit, func(o store.BusinessObject) int64 { return o.Seq }, businessObject), nil
}

// ObjectLife is a business object with its revisions and its neighbours.
type ObjectLife struct {
	BusinessObject
	Revisions []ObjectRevision `json:"revisions" nullable:"false" doc:"Oldest first"`
	Names     []ObjectLink     `json:"names" nullable:"false" doc:"What it names: the order of a receipt, the receipts of an invoice"`
	NamedBy   []ObjectLink     `json:"named_by" nullable:"false" doc:"What names it, the newest first; at most 100"`
}

// ObjectRevision is what one revision said.
type ObjectRevision struct {
	Revision int64     `json:"revision"`
	State    string    `json:"state,omitempty"`
	At       time.Time `json:"at"`
	Object   Content   `json:"object"`
}

// ObjectLink is another object. State is absent where the hub does not have it.
type ObjectLink struct {
	Kind   string `json:"kind" doc:"A kind of business objects, or work_order"`
	Number string `json:"number"`
	Key    string `json:"key,omitempty"`
	State  string `json:"state,omitempty"`
}

type objectInput struct {
	KindInput
	ERP    string `path:"erp"`
	Number string `path:"number" doc:"Its number, or its technical key"`
}

func (s *server) getObject(ctx context.Context, in *objectInput) (*struct{ Body ObjectLife }, error) {
	kind := object.BusinessKind(in.Kind)
	what := fmt.Sprintf("%s %q of %q", strings.ReplaceAll(in.Kind, "_", " "), in.Number, in.ERP)
	all, err := s.store.FindBusiness(ctx, in.ERP, kind, in.Number)
	switch {
	case err != nil:
		return nil, fail(err, what)
	case len(all) == 0:
		return nil, huma.Error404NotFound(what + " is not known to this hub: it may not be read (business in hub.yaml), or not yet")
	case len(all) > 1:
		var keys []string
		for _, o := range all {
			keys = append(keys, o.Key)
		}
		return nil, huma.Error409Conflict(fmt.Sprintf("%s is the number of several: name one by its key: %s", what, strings.Join(keys, ", ")))
	}
	v := ObjectLife{BusinessObject: businessObject(all[0]), Revisions: []ObjectRevision{}, Names: []ObjectLink{}, NamedBy: []ObjectLink{}}
	revisions, err := s.store.BusinessRevisions(ctx, all[0].ID)
	if err != nil {
		return nil, fail(err, "the revisions of "+what)
	}
	for _, r := range revisions {
		v.Revisions = append(v.Revisions, ObjectRevision{r.Revision, r.Object.Names().State, r.At, Content{r.Object}})
	}
	if err := s.neighbours(ctx, all[0], &v); err != nil {
		return nil, fail(err, "what belongs to "+what)
	}
	return one(v), nil
}

func (s *server) neighbours(ctx context.Context, o store.BusinessObject, v *ObjectLife) error {
	for _, l := range o.Object.Links() {
		link := ObjectLink{Kind: string(l.Kind), Number: l.Number}
		found, err := s.store.FindBusiness(ctx, v.ERP, l.Kind, l.Number)
		if err != nil {
			return err
		}
		if len(found) > 0 {
			link.Key, link.State = found[0].Key, found[0].Object.Names().State
		}
		v.Names = append(v.Names, link)
	}
	if v.Number == "" { // nobody can name it
		return nil
	}
	by, err := s.store.Business(ctx, store.BusinessFilter{ERP: v.ERP, LinkedTo: object.Link{Kind: o.Object.Kind, Number: v.Number}}, store.Page{Limit: 100})
	if err != nil {
		return err
	}
	for _, x := range by {
		n := x.Object.Names()
		v.NamedBy = append(v.NamedBy, ObjectLink{string(x.Object.Kind), n.Number, x.Key, n.State})
	}
	return nil
}
