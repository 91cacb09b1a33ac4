package payload

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

func (d *decoder) dataSet(f field) (*DataSet, error) {
	var b []byte
	if err := f.bytes(&b); err != nil {
		return nil, err
	}
	s := &DataSet{}
	columns := uint64(math.MaxUint64)
	err := d.fields(b, func(n protowire.Number, f field) error {
		switch n {
		case 1:
			return f.number(&columns)
		case 2:
			var name string
			err := errors.Join(d.part(), f.text(&name))
			s.Columns = append(s.Columns, name)
			return err
		case 3:
			return d.columnTypes(s, f)
		case 4:
			row, err := d.row(f)
			s.Rows = append(s.Rows, row)
			return err
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(s.Columns) != len(s.Types) || columns != math.MaxUint64 && columns != uint64(len(s.Columns)) {
		return nil, fmt.Errorf("a data set has %d column names and %d column types", len(s.Columns), len(s.Types))
	}
	for i, r := range s.Rows {
		if len(r) != len(s.Columns) {
			return nil, fmt.Errorf("row %d of a data set has %d cells, but there are %d columns", i+1, len(r), len(s.Columns))
		}
	}
	return s, nil
}

// columnTypes reads the types of columns, which may come one by one or packed together.
func (d *decoder) columnTypes(s *DataSet, f field) error {
	if f.wire == protowire.VarintType {
		s.Types = append(s.Types, Type(uint32(f.num)))
		return d.part()
	}
	var packed []byte
	if err := f.bytes(&packed); err != nil {
		return err
	}
	for len(packed) > 0 {
		v, size := protowire.ConsumeVarint(packed)
		if size < 0 {
			return errWire
		}
		if err := d.part(); err != nil {
			return err
		}
		s.Types, packed = append(s.Types, Type(uint32(v))), packed[size:]
	}
	return nil
}

func (d *decoder) row(f field) (cells []Raw, err error) {
	var b []byte
	if err := errors.Join(d.part(), f.bytes(&b)); err != nil {
		return nil, err
	}
	err = d.fields(b, func(n protowire.Number, f field) error {
		if n != 1 {
			return nil
		}
		var b []byte
		if err := errors.Join(d.part(), f.bytes(&b)); err != nil {
			return err
		}
		var v Raw
		err := d.fields(b, func(n protowire.Number, f field) error {
			switch {
			case n >= 1 && n <= 6:
				return v.scalar(Carrier(n-1)+IntValue, f)
			case n == 7:
				v = Raw{Carrier: ExtensionValue}
				return f.bytes(&v.Bytes)
			}
			return nil
		})
		cells = append(cells, v)
		return err
	})
	return cells, err
}

func (d *decoder) template(f field, depth int) (*Template, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	var b []byte
	if err := f.bytes(&b); err != nil {
		return nil, err
	}
	t := &Template{}
	return t, d.fields(b, func(n protowire.Number, f field) error {
		switch n {
		case 1:
			return f.text(&t.Version)
		case 2:
			var b []byte
			if err := errors.Join(d.part(), f.bytes(&b)); err != nil {
				return err
			}
			m, err := d.metric(b, depth)
			t.Metrics = append(t.Metrics, m)
			return err
		case 3:
			p, err := d.parameter(f)
			t.Parameters = append(t.Parameters, p)
			return err
		case 4:
			return f.text(&t.Ref)
		case 5:
			return f.flag(&t.Definition)
		}
		return nil
	})
}

func (d *decoder) parameter(f field) (Property, error) {
	var p Property
	var b []byte
	if err := errors.Join(d.part(), f.bytes(&b)); err != nil {
		return p, err
	}
	err := d.fields(b, func(n protowire.Number, f field) error {
		switch {
		case n == 1:
			return f.text(&p.Key)
		case n == 2:
			return f.kind(&p.Type)
		case n >= 3 && n <= 8:
			return p.Value.scalar(Carrier(n-3)+IntValue, f)
		case n == 9:
			p.Value = Raw{Carrier: ExtensionValue}
			return f.bytes(&p.Value.Bytes)
		}
		return nil
	})
	return p, err
}
