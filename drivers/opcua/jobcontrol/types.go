package jobcontrol

import (
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
)

// Namespace of the types; NamespaceV1 is that of the version before, whose receivers have one method ReceiveJobOrder.
const (
	Namespace   = "http://opcfoundation.org/UA/ISA95-JOBCONTROL_V2/"
	NamespaceV1 = "http://opcfoundation.org/UA/ISA95-JOBCONTROL"
)

// Numbers of the namespace's nodes.
const (
	ReceiverType          = 1002
	ReceiverSubStatesType = 1008
	ResponseProviderType  = 1003
	OrderDataType         = 3008
	OrderEncoding         = 5014
	StateEncoding         = 5029
	StatusEventType       = 1006
	OrderAndStateDataType = 3015
	OrderAndStateEncoding = 5032
	ResponseDataType      = 3013
	ResponseEncoding      = 5026
)

// Text is a text in one language.
type Text struct{ Locale, Text string }

// Unit is a unit of measure.
type Unit struct {
	Namespace   string
	ID          int32
	Name        Text
	Description Text
}

// unitNamespace is that of the codes of UN/ECE Recommendation 20, whose letters are the number's bytes.
const unitNamespace = "http://www.opcfoundation.org/UA/units/un/cefact"

// UnitOf is a unit by its Rec 20 code; nil for none.
func UnitOf(code string) *Unit {
	if code == "" {
		return nil
	}
	u := &Unit{Namespace: unitNamespace, ID: -1, Name: Text{Text: code}}
	if len(code) <= 3 {
		u.ID = 0
		for _, b := range []byte(code) {
			u.ID = u.ID<<8 | int32(b)
		}
	}
	return u
}

func (u *Unit) code(c *coder) {
	c.string(&u.Namespace)
	c.int32(&u.ID)
	c.text(&u.Name)
	c.text(&u.Description)
}

func (c *coder) unit(v **Unit) {
	if *v == nil {
		*v = &Unit{}
	}
	(*v).code(c)
}

// Parameter is a named value. A property has the same form.
type Parameter struct {
	ID          string
	Value       *ua.Variant
	Description []Text
	Unit        *Unit
	Parts       []Parameter
}

func codeParameter(c *coder, p *Parameter) {
	m := c.mask(len(p.Description) > 0, p.Unit != nil, len(p.Parts) > 0)
	c.string(&p.ID)
	c.variant(&p.Value)
	if m&1 != 0 {
		c.texts(&p.Description)
	}
	if m&2 != 0 {
		c.unit(&p.Unit)
	}
	if m&4 != 0 {
		c.parameters(&p.Parts)
	}
}

func (c *coder) texts(v *[]Text)           { list(c, v, 1, (*coder).text) }
func (c *coder) parameters(v *[]Parameter) { list(c, v, 9, codeParameter) }

// WorkMaster is how something is made.
type WorkMaster struct {
	ID          string
	Description Text
	Parameters  []Parameter
}

func codeWorkMaster(c *coder, w *WorkMaster) {
	m := c.mask(w.Description != Text{}, len(w.Parameters) > 0)
	c.string(&w.ID)
	if m&1 != 0 {
		c.text(&w.Description)
	}
	if m&2 != 0 {
		c.parameters(&w.Parameters)
	}
}

// Resource is a person, a piece of equipment or a physical asset. Quantity is a decimal as text.
type Resource struct {
	ID          string
	Description []Text
	Use         string
	Quantity    string
	Unit        *Unit
	Properties  []Parameter
}

func codeResource(c *coder, r *Resource) {
	m := c.mask(len(r.Description) > 0, r.Use != "", r.Quantity != "", r.Unit != nil, len(r.Properties) > 0)
	c.string(&r.ID)
	c.use(m, &r.Description, &r.Use, &r.Quantity, &r.Unit, &r.Properties)
}

// use codes what resources and materials have in common.
func (c *coder) use(m uint32, description *[]Text, use, quantity *string, unit **Unit, properties *[]Parameter) {
	if m&1 != 0 {
		c.texts(description)
	}
	if m&2 != 0 {
		c.string(use)
	}
	if m&4 != 0 {
		c.string(quantity)
	}
	if m&8 != 0 {
		c.unit(unit)
	}
	if m&16 != 0 {
		c.parameters(properties)
	}
}

// Material is what is made or used up. Quantity is a decimal as text.
type Material struct {
	Class, Definition, Lot, Sublot string
	Description                    []Text
	Use                            string
	Quantity                       string
	Unit                           *Unit
	Properties                     []Parameter
}

func codeMaterial(c *coder, v *Material) {
	m := c.mask(v.Class != "", v.Definition != "", v.Lot != "", v.Sublot != "", len(v.Description) > 0, v.Use != "", v.Quantity != "",
		v.Unit != nil, len(v.Properties) > 0)
	for i, s := range []*string{&v.Class, &v.Definition, &v.Lot, &v.Sublot} {
		if m&(1<<i) != 0 {
			c.string(s)
		}
	}
	c.use(m>>4, &v.Description, &v.Use, &v.Quantity, &v.Unit, &v.Properties)
}

func (c *coder) resources(v *[]Resource) { list(c, v, 8, codeResource) }
func (c *coder) materials(v *[]Material) { list(c, v, 4, codeMaterial) }

// Order is a job order. Times are zero and Priority nil when there is none.
type Order struct {
	ID          string
	Description []Text
	WorkMasters []WorkMaster
	Start, End  time.Time
	Priority    *int16
	Parameters  []Parameter
	Personnel   []Resource
	Equipment   []Resource
	Assets      []Resource
	Materials   []Material
}

func (o *Order) code(c *coder) {
	m := c.mask(len(o.Description) > 0, len(o.WorkMasters) > 0, !o.Start.IsZero(), !o.End.IsZero(), o.Priority != nil,
		len(o.Parameters) > 0, len(o.Personnel) > 0, len(o.Equipment) > 0, len(o.Assets) > 0, len(o.Materials) > 0)
	c.string(&o.ID)
	if m&1 != 0 {
		c.texts(&o.Description)
	}
	if m&2 != 0 {
		list(c, &o.WorkMasters, 8, codeWorkMaster)
	}
	if m&4 != 0 {
		c.time(&o.Start)
	}
	if m&8 != 0 {
		c.time(&o.End)
	}
	if m&16 != 0 {
		if o.Priority == nil {
			o.Priority = new(int16)
		}
		c.int16(o.Priority)
	}
	if m&32 != 0 {
		c.parameters(&o.Parameters)
	}
	for i, r := range []*[]Resource{&o.Personnel, &o.Equipment, &o.Assets} {
		if m&(64<<i) != 0 {
			c.resources(r)
		}
	}
	if m&512 != 0 {
		c.materials(&o.Materials)
	}
}

// Encode gives the bytes of an order's structure.
func (o *Order) Encode() ([]byte, error) { return encode(o.code) }

// Decode reads them and returns how many there were.
func (o *Order) Decode(b []byte) (int, error) { return decode(b, o.code) }

// Parameter returns the order's parameter of that name, nil when it has none.
func (o *Order) Parameter(id string) *Parameter {
	for i := range o.Parameters {
		if strings.EqualFold(o.Parameters[i].ID, id) {
			return &o.Parameters[i]
		}
	}
	return nil
}

// Job is a job order with its states, as a receiver lists it: the state itself first, then states within it.
type Job struct {
	Order  Order
	States []State
}

func (j *Job) code(c *coder) {
	j.Order.code(c)
	list(c, &j.States, 9, codeState)
}

// Encode gives the bytes of a job's structure.
func (j *Job) Encode() ([]byte, error) { return encode(j.code) }

// Decode reads them and returns how many there were.
func (j *Job) Decode(b []byte) (int, error) { return decode(b, j.code) }

// Response is what a receiver tells of a job's execution.
type Response struct {
	ID          string
	Description Text
	OrderID     string
	Start, End  time.Time
	States      []State
	Data        []Parameter
	Personnel   []Resource
	Equipment   []Resource
	Assets      []Resource
	Materials   []Material
}

func (r *Response) code(c *coder) {
	m := c.mask(r.Description != Text{}, !r.Start.IsZero(), !r.End.IsZero(), len(r.Data) > 0, len(r.Personnel) > 0, len(r.Equipment) > 0,
		len(r.Assets) > 0, len(r.Materials) > 0)
	c.string(&r.ID)
	if m&1 != 0 {
		c.text(&r.Description)
	}
	c.string(&r.OrderID)
	if m&2 != 0 {
		c.time(&r.Start)
	}
	if m&4 != 0 {
		c.time(&r.End)
	}
	list(c, &r.States, 9, codeState)
	if m&8 != 0 {
		c.parameters(&r.Data)
	}
	for i, v := range []*[]Resource{&r.Personnel, &r.Equipment, &r.Assets} {
		if m&(16<<i) != 0 {
			c.resources(v)
		}
	}
	if m&128 != 0 {
		c.materials(&r.Materials)
	}
}

// Encode gives the bytes of a response's structure.
func (r *Response) Encode() ([]byte, error) { return encode(r.code) }

// Decode reads them and returns how many there were.
func (r *Response) Decode(b []byte) (int, error) { return decode(b, r.code) }
