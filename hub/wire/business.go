package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
)

// A business object as JSON has the vocabulary's own names in small letters (LineNo is line_no), decimals as text and times with
// their zone. What says nothing (an empty text, no lines) is left out; a decimal never is. The order of the names is that of the
// vocabulary, so that equal objects are equal bytes. The API shows and takes the same.

var (
	decimalType     = reflect.TypeFor[decimal.Decimal]()
	nullDecimalType = reflect.TypeFor[decimal.NullDecimal]()
	timeType        = reflect.TypeFor[time.Time]()
	businessType    = reflect.TypeFor[object.Business]()
)

// kindNames are the kinds whose field has another name.
var kindNames = map[string]object.BusinessKind{
	"Purchase": object.BusinessPurchase, "Sale": object.BusinessSale, "Count": object.BusinessCount, "Movement": object.BusinessMovement,
}

// BusinessField is a field of a business object as JSON has it.
type BusinessField struct {
	Name  string
	Type  reflect.Type
	index []int
}

// BusinessFields lists the fields of a struct of the vocabulary in their order.
func BusinessFields(t reflect.Type) (all []BusinessField) {
	for _, f := range reflect.VisibleFields(t) {
		if f.Anonymous || !f.IsExported() {
			continue
		}
		all = append(all, BusinessField{Name: businessName(t, f), Type: f.Type, index: f.Index})
	}
	return all
}

// businessName is a field's name in small letters. The fields that hold an object are named like its kind.
func businessName(t reflect.Type, f reflect.StructField) string {
	if kind, ok := kindNames[f.Name]; ok && t == businessType {
		return string(kind)
	}
	return small(f.Name)
}

// small writes LineNo as line_no, ERPKey as erp_key and TaxIDs as tax_ids.
func small(name string) string {
	var b strings.Builder
	r := []rune(name)
	for i, c := range r {
		if i > 0 && unicode.IsUpper(c) {
			next := i+1 < len(r) && unicode.IsLower(r[i+1])
			plural := i+2 == len(r) && r[i+1] == 's'
			if unicode.IsLower(r[i-1]) || next && !plural {
				b.WriteByte('_')
			}
		}
		b.WriteRune(unicode.ToLower(c))
	}
	return b.String()
}

// EncodeBusiness writes an object as JSON.
func EncodeBusiness(o object.Business) ([]byte, error) {
	if err := o.Shape(); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err := encodeValue(&b, reflect.ValueOf(o))
	return b.Bytes(), err
}

func encodeValue(b *bytes.Buffer, v reflect.Value) error {
	switch x := v.Interface().(type) {
	case decimal.Decimal:
		return encodeJSON(b, x.String())
	case decimal.NullDecimal:
		return encodeJSON(b, x.Decimal.String())
	case time.Time:
		return encodeJSON(b, x.Format(time.RFC3339Nano))
	}
	switch v.Kind() {
	case reflect.Pointer:
		return encodeValue(b, v.Elem())
	case reflect.Slice:
		b.WriteByte('[')
		for i := range v.Len() {
			if i > 0 {
				b.WriteByte(',')
			}
			if err := encodeValue(b, v.Index(i)); err != nil {
				return err
			}
		}
		b.WriteByte(']')
		return nil
	case reflect.Struct:
		return encodeStruct(b, v)
	}
	return encodeJSON(b, v.Interface())
}

func encodeStruct(b *bytes.Buffer, v reflect.Value) error {
	b.WriteByte('{')
	first := true
	for _, f := range BusinessFields(v.Type()) {
		x := v.FieldByIndex(f.index)
		if says := f.Type == decimalType || !x.IsZero() && (x.Kind() != reflect.Slice || x.Len() > 0); !says {
			continue
		}
		if n, ok := x.Interface().(decimal.NullDecimal); ok && !n.Valid {
			continue
		}
		if !first {
			b.WriteByte(',')
		}
		first = false
		b.WriteString(strconv.Quote(f.Name) + ":")
		if err := encodeValue(b, x); err != nil {
			return err
		}
	}
	b.WriteByte('}')
	return nil
}

func encodeJSON(b *bytes.Buffer, v any) error {
	raw, err := json.Marshal(v)
	b.Write(raw)
	return err
}

// FieldError says what is wrong with a field of a business object, named like purchase_order.lines[0].ordered.value.
type FieldError struct{ Field, Problem string }

func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// DecodeBusiness reads what EncodeBusiness writes, strictly: what is not known or not of its type is a *FieldError.
func DecodeBusiness(raw []byte) (o object.Business, err error) {
	if err := decodeValue(reflect.ValueOf(&o).Elem(), raw, ""); err != nil {
		return object.Business{}, err
	}
	if err := o.Shape(); err != nil {
		return object.Business{}, &FieldError{"kind", err.Error()}
	}
	return o, nil
}

// plainDecimal keeps numbers out of which nobody could make sums.
var plainDecimal = regexp.MustCompile(`^-?[0-9]{1,60}(\.[0-9]{1,60})?$`)

func decodeValue(v reflect.Value, raw []byte, at string) error {
	wrong := func(want string) error {
		return &FieldError{strings.TrimPrefix(at, "."), "is " + brief(raw) + "; want " + want}
	}
	if string(raw) == "null" {
		return nil
	}
	switch v.Type() {
	case decimalType, nullDecimalType:
		d, ok := decodeDecimal(raw)
		if !ok {
			return wrong(`a decimal number as text, such as "12.5"`)
		}
		if v.Type() == nullDecimalType {
			v.Set(reflect.ValueOf(decimal.NewNullDecimal(d)))
		} else {
			v.Set(reflect.ValueOf(d))
		}
		return nil
	case timeType:
		var text string
		err := json.Unmarshal(raw, &text)
		t, bad := time.Parse(time.RFC3339, text)
		if err != nil || bad != nil {
			return wrong("a time with its zone, such as 2026-11-26T09:30:00+01:00")
		}
		v.Set(reflect.ValueOf(t))
		return nil
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return decodeValue(v.Elem(), raw, at)
	case reflect.Struct:
		return decodeStruct(v, raw, at, wrong)
	case reflect.Slice:
		var all []json.RawMessage
		if json.Unmarshal(raw, &all) != nil {
			return wrong("a list")
		}
		v.Set(reflect.MakeSlice(v.Type(), len(all), len(all)))
		for i, x := range all {
			if err := decodeValue(v.Index(i), x, fmt.Sprintf("%s[%d]", at, i)); err != nil {
				return err
			}
		}
		return nil
	}
	if json.Unmarshal(raw, v.Addr().Interface()) == nil {
		return nil
	}
	switch v.Kind() {
	case reflect.String:
		return wrong("text")
	case reflect.Bool:
		return wrong("true or false")
	}
	return wrong("a whole number")
}

func decodeDecimal(raw []byte) (d decimal.Decimal, ok bool) {
	var text string
	if json.Unmarshal(raw, &text) != nil || !plainDecimal.MatchString(text) {
		return d, false
	}
	d, err := decimal.NewFromString(text)
	return d, err == nil
}

// decodeStruct reads an object name by name: encoding/json would take a name that is written twice, or in other letters.
func decodeStruct(v reflect.Value, raw []byte, at string, wrong func(string) error) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return wrong("an object")
	}
	fields := map[string]BusinessField{}
	for _, f := range BusinessFields(v.Type()) {
		fields[f.Name] = f
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		name, isName := t.(string)
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil || !isName {
			return wrong("an object that is whole JSON")
		}
		field := strings.TrimPrefix(at+"."+name, ".")
		f, known := fields[name]
		switch {
		case !known:
			return &FieldError{field, "is not known here"}
		case seen[name]:
			return &FieldError{field, "is there twice"}
		}
		seen[name] = true
		if err := decodeValue(v.FieldByIndex(f.index), value, at+"."+name); err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return wrong("an object that is whole JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return wrong("one object and nothing behind it")
	}
	return nil
}

func brief(raw []byte) string {
	if len(raw) > 40 {
		return string(raw[:40]) + "…"
	}
	return string(raw)
}
