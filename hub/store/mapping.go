package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/linekeeper/linekeeper/hub/mapping"
)

// MappingSet is a set with its latest version and what is in force now.
type MappingSet struct {
	mapping.Set
	MadeAt time.Time
	// Latest is the number of the latest version, Waiting how many wait for approval.
	Latest, Waiting int
	// InForce is the number of the version in force now and From since when; 0 for none.
	InForce int
	From    time.Time
}

// MappingStep is one thing that happened to a set.
type MappingStep struct {
	ID     int64
	At     time.Time
	Number int // the version
	Step   string
	By     string
	Note   string
}

const versionColumns = `SELECT s.name, s.kind, s.erp, s.plant, v.number, v.state, v.from_at, v.content, v.life
	FROM mapping_versions v JOIN mapping_sets s ON s.id = v.set_id`

func scanVersion(r *sql.Rows) (v mapping.Version, err error) {
	var from int64
	var content, life string
	if err := r.Scan(&v.Name, &v.Kind, &v.ERP, &v.Plant, &v.Number, &v.State, &from, &content, &life); err != nil {
		return v, err
	}
	v.From = at(from)
	if err := errors.Join(json.Unmarshal([]byte(content), &v.Content), json.Unmarshal([]byte(life), &v.Life)); err != nil {
		return v, fmt.Errorf("stored version %d of mapping set %q: %w", v.Number, v.Name, err)
	}
	return v, nil
}

func versionsOf(ctx context.Context, db querier, name string) ([]mapping.Version, error) {
	all, err := collect(ctx, db, scanVersion, versionColumns+" WHERE s.name = $1 ORDER BY v.number", name)
	if err != nil {
		return nil, fmt.Errorf("read mapping set %q: %w", name, err)
	}
	return all, nil
}

// MappingSets lists all sets by name.
func (s *Store) MappingSets(ctx context.Context) ([]MappingSet, error) {
	type row struct {
		MappingSet
		number int
		state  mapping.State
		from   time.Time
	}
	rows, err := collect(ctx, s, func(r *sql.Rows) (x row, err error) {
		var made, from int64
		err = r.Scan(&x.Name, &x.Kind, &x.ERP, &x.Plant, &made, &x.number, &x.state, &from)
		x.MadeAt, x.from = at(made), at(from)
		return x, err
	}, `SELECT s.name, s.kind, s.erp, s.plant, s.made_at, v.number, v.state, v.from_at FROM mapping_sets s
		JOIN mapping_versions v ON v.set_id = s.id ORDER BY s.name, v.number`)
	if err != nil {
		return nil, fmt.Errorf("list mapping sets: %w", err)
	}
	var all []MappingSet
	now := s.now()
	for _, x := range rows {
		if len(all) == 0 || all[len(all)-1].Name != x.Name {
			all = append(all, x.MappingSet)
		}
		m := &all[len(all)-1]
		m.Latest = x.number
		switch {
		case x.state == mapping.Proposed:
			m.Waiting++
		case x.state == mapping.Approved && !x.from.After(now):
			m.InForce, m.From = x.number, x.from
		}
	}
	return all, nil
}

// MappingVersions returns a set's versions, oldest first, and its audit trail. ErrNotFound when there is no such set.
func (s *Store) MappingVersions(ctx context.Context, name string) ([]mapping.Version, []MappingStep, error) {
	all, err := versionsOf(ctx, s, name)
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("mapping set %q: %w", name, ErrNotFound)
	}
	if err != nil {
		return nil, nil, err
	}
	steps, err := collect(ctx, s, func(r *sql.Rows) (x MappingStep, err error) {
		var t int64
		err = r.Scan(&x.ID, &t, &x.Number, &x.Step, &x.By, &x.Note)
		x.At = at(t)
		return x, err
	}, `SELECT t.id, t.at, t.number, t.step, t.by_whom, t.note FROM mapping_steps t JOIN mapping_sets s ON s.id = t.set_id
		WHERE s.name = $1 ORDER BY t.id`, name)
	if err != nil {
		return nil, nil, fmt.Errorf("read steps of mapping set %q: %w", name, err)
	}
	return all, steps, nil
}

// mappingSet finds a set by name; id is 0 when there is none.
func (tx *Tx) mappingSet(name string) (id int64, s mapping.Set, err error) {
	type row struct {
		id int64
		mapping.Set
	}
	x, err := first(tx.ctx, tx, func(r *sql.Rows) (x row, err error) { return x, r.Scan(&x.id, &x.Name, &x.Kind, &x.ERP, &x.Plant) },
		"SELECT id, name, kind, erp, plant FROM mapping_sets WHERE name = $1", name)
	if errors.Is(err, ErrNotFound) {
		return 0, s, nil
	}
	return x.id, x.Set, err
}

// ErrMappingSet says that a set cannot be made, or is another one than it was.
var ErrMappingSet = errors.New("mapping set")

// AddMappingVersion stores a new version on top of base, and the set with its first one. With propose it is put up for approval
// at once. The error wraps those of package mapping's life of a version, or ErrMappingSet.
func (s *Store) AddMappingVersion(ctx context.Context, set mapping.Set, base int, c mapping.Content, by, note string, propose bool) (v mapping.Version, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		id, known, err := tx.mappingSet(set.Name)
		if err != nil {
			return err
		}
		if id != 0 && known != set {
			return fmt.Errorf("%w %q is of kind %q for system %q and plant %q: that cannot change, make another set", ErrMappingSet, set.Name, known.Kind, known.ERP, known.Plant)
		}
		all, err := versionsOf(tx.ctx, tx, set.Name)
		if err != nil {
			return err
		}
		if v, err = mapping.Next(set, all, base, c, by, note, tx.now); err != nil {
			return err
		}
		if propose {
			if err := v.Propose(by, tx.now); err != nil {
				return err
			}
		}
		if id == 0 {
			if id, err = tx.addMappingSet(set); err != nil {
				return err
			}
		}
		if err := tx.addVersion(id, v); err != nil {
			return err
		}
		if err := tx.mappingStep(id, v.Number, "made", by, note); err != nil || !propose {
			return err
		}
		return tx.mappingStep(id, v.Number, "proposed", by, note)
	})
	if err != nil {
		return mapping.Version{}, fmt.Errorf("add to mapping set %q: %w", set.Name, err)
	}
	return v, nil
}

func (tx *Tx) addMappingSet(s mapping.Set) (int64, error) {
	other, err := first(tx.ctx, tx, scanValue[string], `SELECT name FROM mapping_sets WHERE kind = $1 AND erp = $2 AND plant = $3
		AND kind NOT IN ('list', 'movement')`, string(s.Kind), s.ERP, s.Plant)
	if err == nil {
		return 0, fmt.Errorf("%w %q is of the same kind for the same system and plant: make a version of that one", ErrMappingSet, other)
	}
	if !errors.Is(err, ErrNotFound) {
		return 0, err
	}
	return first(tx.ctx, tx, scanValue[int64], "INSERT INTO mapping_sets (name, kind, erp, plant, made_at) VALUES ($1, $2, $3, $4, $5) RETURNING id",
		s.Name, string(s.Kind), s.ERP, s.Plant, us(tx.now))
}

func (tx *Tx) addVersion(set int64, v mapping.Version) error {
	content, err1 := json.Marshal(v.Content)
	life, err2 := json.Marshal(v.Life)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	_, err := tx.exec("INSERT INTO mapping_versions (set_id, number, state, from_at, content, life) VALUES ($1, $2, $3, $4, $5, $6)",
		set, v.Number, string(v.State), us(v.From), string(content), string(life))
	return err
}

func (tx *Tx) mappingStep(set int64, number int, step, by, note string) error {
	tx.touch(TopicMappings)
	_, err := tx.exec("INSERT INTO mapping_steps (set_id, number, at, step, by_whom, note) VALUES ($1, $2, $3, $4, $5, $6)", set, number, us(tx.now), step, by, note)
	return err
}

// ChangeMapping takes a version further: change decides about it, knowing all versions of its set, and step names what was
// done. What a version says cannot be changed.
func (s *Store) ChangeMapping(ctx context.Context, name string, number int, step, by, note string, change func(v *mapping.Version, all []mapping.Version, now time.Time) error) (v mapping.Version, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		id, _, err := tx.mappingSet(name)
		if err != nil {
			return err
		}
		all, err := versionsOf(tx.ctx, tx, name)
		if err != nil {
			return err
		}
		if number < 1 || number > len(all) {
			return fmt.Errorf("version %d: %w", number, ErrNotFound)
		}
		v = all[number-1]
		before := v.State
		if err := change(&v, all, tx.now); err != nil {
			return err
		}
		life, err := json.Marshal(v.Life)
		if err != nil {
			return err
		}
		res, err := tx.exec("UPDATE mapping_versions SET state = $1, from_at = $2, life = $3 WHERE set_id = $4 AND number = $5 AND state = $6",
			string(v.State), us(v.From), string(life), id, number, string(before))
		if err := mustChange(res, err); err != nil {
			return err
		}
		if v.State == mapping.Approved {
			if err := tx.newRules(); err != nil {
				return err
			}
		}
		return tx.mappingStep(id, number, step, by, note)
	})
	if err != nil {
		return mapping.Version{}, fmt.Errorf("version %d of mapping set %q: %w", number, name, err)
	}
	return v, nil
}

// ReturnMapping brings an earlier content back into force as a new version; see mapping.Return.
func (s *Store) ReturnMapping(ctx context.Context, name string, base, to int, by, note string, from time.Time) (v mapping.Version, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		id, set, err := tx.mappingSet(name)
		if err == nil && id == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		all, err := versionsOf(tx.ctx, tx, name)
		if err != nil {
			return err
		}
		if v, err = mapping.Return(set, all, base, to, by, note, from, tx.now); err != nil {
			return err
		}
		if err := errors.Join(tx.addVersion(id, v), tx.newRules()); err != nil {
			return err
		}
		return tx.mappingStep(id, v.Number, fmt.Sprintf("returned to version %d", v.Returns), by, note)
	})
	if err != nil {
		return mapping.Version{}, fmt.Errorf("return to an earlier version of mapping set %q: %w", name, err)
	}
	return v, nil
}

// newRules gives the rules another generation. It is drawn: one that was used by a transaction which was undone must not come again.
func (tx *Tx) newRules() error {
	tx.rules = nil
	return tx.setMeta("mapping_generation", strconv.FormatInt(rand.Int64()|1, 10))
}

// MappingRules are the approved versions of all sets as they are committed.
func (s *Store) MappingRules(ctx context.Context) (*mapping.Rules, error) { return s.readRules(ctx, s) }

// MappingRules is Store.MappingRules inside a transaction. It is cheap to ask for again.
func (tx *Tx) MappingRules() (r *mapping.Rules, err error) {
	if tx.rules == nil {
		tx.rules, err = tx.s.readRules(tx.ctx, tx)
	}
	return tx.rules, err
}

// AwaitMappings waits until changed says that the mappings have, until a version comes into force that was not at a time since, for
// the longest time, or for ctx's end. Where the mappings cannot be read it waits for the others.
func (s *Store) AwaitMappings(ctx context.Context, changed <-chan struct{}, since time.Time, now func() time.Time, longest time.Duration) {
	if rules, err := s.MappingRules(ctx); err == nil {
		if next := rules.Next(since); !next.IsZero() {
			longest = min(max(next.Sub(now()), time.Millisecond), longest)
		}
	}
	timer := time.NewTimer(longest)
	defer timer.Stop()
	select {
	case <-changed:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func (s *Store) readRules(ctx context.Context, db querier) (*mapping.Rules, error) {
	text, err := metaText(ctx, db, "mapping_generation")
	if err != nil {
		return nil, fmt.Errorf("read mappings: %w", err)
	}
	generation, _ := strconv.ParseInt(text, 10, 64) // empty: there are none
	if r := s.rules.Load(); r != nil && r.Generation == generation {
		return r, nil
	}
	all, err := collect(ctx, db, scanVersion, versionColumns+" WHERE v.state = 'approved' ORDER BY v.set_id, v.number")
	if err != nil {
		return nil, fmt.Errorf("read mappings: %w", err)
	}
	// Outside of a transaction a version may have been approved between the two questions.
	if again, err := metaText(ctx, db, "mapping_generation"); err != nil || again != text {
		if err == nil {
			return s.readRules(ctx, db)
		}
		return nil, fmt.Errorf("read mappings: %w", err)
	}
	r := mapping.NewRules(generation, all)
	s.rules.Store(r)
	return r, nil
}

// DryRun is the dry run of a version that was kept.
type DryRun struct {
	mapping.Dry
	At time.Time
	By string
}

// PutDryRun keeps a dry run.
func (s *Store) PutDryRun(ctx context.Context, d mapping.Dry, by string) error {
	body, err := json.Marshal(d)
	if err != nil {
		return err
	}
	err = s.Update(ctx, func(tx *Tx) error {
		id, _, err := tx.mappingSet(d.Set)
		if err == nil && id == 0 {
			err = ErrNotFound
		}
		if err != nil {
			return err
		}
		_, err = tx.exec("INSERT INTO mapping_dry_runs (set_id, number, at, by_whom, body) VALUES ($1, $2, $3, $4, $5)", id, d.Version, us(tx.now), by, string(body))
		return err
	})
	if err != nil {
		return fmt.Errorf("keep dry run of mapping set %q: %w", d.Set, err)
	}
	return nil
}

// LastDryRun returns the latest dry run of a version. ErrNotFound when there was none.
func (s *Store) LastDryRun(ctx context.Context, name string, number int) (DryRun, error) {
	d, err := first(ctx, s, func(r *sql.Rows) (d DryRun, err error) {
		var t int64
		var body string
		if err := r.Scan(&t, &d.By, &body); err != nil {
			return d, err
		}
		d.At = at(t)
		return d, json.Unmarshal([]byte(body), &d.Dry)
	}, `SELECT d.at, d.by_whom, d.body FROM mapping_dry_runs d JOIN mapping_sets s ON s.id = d.set_id
		WHERE s.name = $1 AND d.number = $2 ORDER BY d.id DESC LIMIT 1`, name, number)
	if err != nil {
		return d, fmt.Errorf("read dry run of version %d of mapping set %q: %w", number, name, err)
	}
	return d, nil
}
