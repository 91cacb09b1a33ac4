package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/store"
)

// Mapping is a set of definitions of how the words of plants and outside systems relate.
type Mapping struct {
	Name  string `json:"name"`
	Kind  string `json:"kind" enum:"unit,item,site,movement,reason,list"`
	ERP   string `json:"erp,omitempty" doc:"Where it counts; absent for everywhere"`
	Plant string `json:"plant,omitempty" doc:"Where it counts; absent for everywhere"`
	// Latest is what a new version is made on top of.
	Latest  int        `json:"latest" doc:"Number of the latest version: the base of a new one"`
	Waiting int        `json:"waiting" doc:"Versions that wait for approval"`
	InForce int        `json:"in_force,omitempty" doc:"Number of the version in force now; absent for none"`
	Since   *time.Time `json:"since,omitempty"`
}

// MappingVersion is one version of a set without its content, which never changes.
type MappingVersion struct {
	Number       int        `json:"number"`
	State        string     `json:"state" enum:"draft,proposed,rejected,scheduled,effective,superseded"`
	From         *time.Time `json:"effective_from,omitempty" doc:"Facts that occurred at or after are said by it"`
	Base         int        `json:"base"`
	Note         string     `json:"note,omitempty"`
	MadeBy       string     `json:"made_by"`
	MadeAt       time.Time  `json:"made_at"`
	ProposedBy   string     `json:"proposed_by,omitempty"`
	ProposedAt   *time.Time `json:"proposed_at,omitempty"`
	DecidedBy    string     `json:"decided_by,omitempty" doc:"Who approved or rejected it"`
	DecidedAt    *time.Time `json:"decided_at,omitempty"`
	DecisionNote string     `json:"decision_note,omitempty"`
	Acknowledged []string   `json:"acknowledged,omitempty" doc:"Warnings of the dry run that the approver named"`
	Returns      int        `json:"returns,omitempty" doc:"It has the content of this version again; one person brought it back"`
	Rows         int        `json:"rows"`
	Tests        int        `json:"tests"`
}

// MappingStep is one thing that happened to a set.
type MappingStep struct {
	At     time.Time `json:"at"`
	Number int       `json:"number" doc:"The version"`
	Step   string    `json:"step"`
	By     string    `json:"by"`
	Note   string    `json:"note,omitempty"`
}

// MappingLife is a set with its versions, newest first, and its audit trail.
type MappingLife struct {
	Mapping
	Versions []MappingVersion `json:"versions" nullable:"false"`
	Trail    []MappingStep    `json:"trail" nullable:"false"`
}

// MappingContent is one version with everything that it says.
type MappingContent struct {
	Mapping
	Version MappingVersion `json:"version"`
	Content MappingBody    `json:"content"`
	Faults  []MappingFault `json:"faults" nullable:"false" doc:"Without any it can be proposed"`
	// Against is the version that Changes compares with.
	Against int             `json:"against" doc:"Number of the version that changes compares with, 0 for none"`
	Changes []MappingChange `json:"changes" nullable:"false"`
	DryRun  *MappingDryRun  `json:"dry_run,omitempty" doc:"The latest one"`
}

// These are the types of package mapping under names of this document's own.
type (
	MappingRow       mapping.Row
	MappingTest      mapping.Test
	MappingFault     mapping.Fault
	MappingChange    mapping.Change
	MappingExample   mapping.Example
	MappingWarning   mapping.Warning
	MappingOrderLine mapping.OrderLine
	MappedValue      mapping.Value
)

// MappingBody is what a version says.
type MappingBody struct {
	Scale    *int32        `json:"scale,omitempty" doc:"Decimals that the outside system keeps; absent: what it says of itself"`
	Unlisted string        `json:"unlisted,omitempty" enum:"stop,keep"`
	Rows     []MappingRow  `json:"rows" nullable:"false"`
	Tests    []MappingTest `json:"tests" nullable:"false"`
}

// each converts a list that is never nil.
func each[A, B any](all []A, convert func(A) B) []B {
	out := make([]B, len(all))
	for i, a := range all {
		out[i] = convert(a)
	}
	return out
}

func toFault(f mapping.Fault) MappingFault       { return MappingFault(f) }
func toExample(x mapping.Example) MappingExample { return MappingExample(x) }

// MappingDryRun is what a version would change.
type MappingDryRun struct {
	Set       string           `json:"set"`
	Version   int              `json:"version"`
	Against   int              `json:"against" doc:"Number of the version in force, 0 for none"`
	Since     time.Time        `json:"since" doc:"Facts that occurred at or after were looked at"`
	Facts     int              `json:"facts" doc:"Facts that the set concerns"`
	Changed   int              `json:"changed" doc:"Would be said otherwise"`
	Stops     int              `json:"stops" doc:"Would stop, and go today"`
	Goes      int              `json:"goes" doc:"Would go, and stop today"`
	Sums      []MappingSum     `json:"sums" nullable:"false"`
	Examples  []MappingExample `json:"examples" nullable:"false"`
	Stopped   []MappingExample `json:"stopped" nullable:"false"`
	Warnings  []MappingWarning `json:"warnings" nullable:"false" doc:"Whoever approves must name each of them"`
	Truncated bool             `json:"truncated,omitempty" doc:"There are more facts: the latest ones were looked at"`
	At        *time.Time       `json:"at,omitempty"`
	By        string           `json:"by,omitempty"`
	// Orders are the open work orders that the set concerns.
	Orders        int                `json:"orders" doc:"Open work orders that the set concerns"`
	OrdersChanged int                `json:"orders_changed" doc:"Would go down otherwise, or not at all"`
	OrdersStop    int                `json:"orders_stop" doc:"Would not go down any more"`
	OrderExamples []MappingOrderLine `json:"order_examples" nullable:"false" doc:"Those that would stop stand first"`
}

// MappingSum is the quantities of all facts that are counted in one unit and posted in another.
type MappingSum struct {
	Unit       string `json:"unit" doc:"Of the facts"`
	Facts      int    `json:"facts"`
	Counted    string `json:"counted"`
	UnitBefore string `json:"unit_before,omitempty" doc:"As it is today; absent: stops"`
	Before     string `json:"before"`
	UnitAfter  string `json:"unit_after,omitempty" doc:"As it would be; absent: stops"`
	After      string `json:"after"`
}

// PostingMapping is how a posting is said in the outside system's words, and which versions made that so.
type PostingMapping struct {
	Item    string         `json:"item,omitempty"`
	Unit    string         `json:"unit,omitempty"`
	Factor  string         `json:"factor,omitempty"`
	Reason  string         `json:"reason,omitempty"`
	Site    string         `json:"site,omitempty"`
	Amounts []MappedAmount `json:"amounts,omitempty"`
	Values  []MappedValue  `json:"values" nullable:"false"`
}

// MappedAmount is one quantity in both units.
type MappedAmount struct {
	Kind    string `json:"kind"`
	Counted string `json:"counted" doc:"In the fact's unit"`
	Posted  string `json:"posted" doc:"In the outside system's unit, as it keeps it"`
}

func (s *server) mappingRoutes(api huma.API) {
	get(api, "list-mappings", "/v1/mappings", "Mapping sets by name, with the version in force", s.listMappings)
	get(api, "get-mapping", "/v1/mappings/{name}", "One mapping set with its versions and its audit trail", s.getMapping)
	get(api, "get-mapping-version", "/v1/mappings/{name}/versions/{version}", "What one version says, its faults, what it changes, and its latest dry run", s.getMappingVersion)
	get(api, "export-mapping-version", "/v1/mappings/{name}/versions/{version}/file", "One version as a YAML or CSV file", s.exportMapping)
	large(api, "check-mapping", "/v1/mappings/check", "Name the faults of a mapping set and run its tests, without storing it", s.checkMapping)
	large(api, "add-mapping-version", "/v1/mappings", "Store a new version, and the set with its first one; optionally propose it", s.addMapping)
	post(api, "propose-mapping-version", "/v1/mappings/{name}/versions/{version}/propose", "Put a draft up for approval", s.proposeMapping)
	post(api, "dry-run-mapping-version", "/v1/mappings/{name}/versions/{version}/dry-run", "What the version would have changed of recent facts; changes nothing", s.dryRunMapping)
	post(api, "approve-mapping-version", "/v1/mappings/{name}/versions/{version}/approve", "Bring a proposed version into force: not by who made or proposed it; each warning of its dry run must be named", s.approveMapping)
	post(api, "reject-mapping-version", "/v1/mappings/{name}/versions/{version}/reject", "End a draft or a proposed version", s.rejectMapping)
	post(api, "return-mapping", "/v1/mappings/{name}/return", "Urgent: bring the content before back at once, as a new version. One person is enough, because two have approved that content before", s.returnMapping)
}

// large is post for bodies that carry whole sets.
func large[I, O any](api huma.API, id, path, summary string, h func(context.Context, *I) (*O, error)) {
	huma.Register(api, huma.Operation{OperationID: id, Method: "POST", Path: path, Summary: summary, MaxBodyBytes: 16 << 20, BodyReadTimeout: 30 * time.Second}, h)
}

// mappingRefusal turns an error of a mapping's life into an answer.
func mappingRefusal(err error, item string) error {
	switch {
	case errors.Is(err, mapping.ErrFourEyes):
		return huma.Error403Forbidden(err.Error())
	case errors.Is(err, mapping.ErrFaulty):
		return huma.Error422UnprocessableEntity(err.Error())
	case errors.Is(err, mapping.ErrStale), errors.Is(err, mapping.ErrState), errors.Is(err, mapping.ErrUnacknowledged), errors.Is(err, store.ErrMappingSet):
		return huma.Error409Conflict(err.Error())
	}
	return refusal(err, item)
}

func (s *server) listMappings(ctx context.Context, _ *struct{}) (*list[Mapping], error) {
	rows, err := s.store.MappingSets(ctx)
	if err != nil {
		return nil, fail(err, "the list of mapping sets")
	}
	return paged(rows, 0, nil, func(m store.MappingSet) Mapping {
		return Mapping{m.Name, string(m.Kind), m.ERP, m.Plant, m.Latest, m.Waiting, m.InForce, when(m.From)}
	}), nil
}

// MappingInput names a set.
type MappingInput struct {
	Name string `path:"name" doc:"Of the set"`
}

// MappingVersionInput names a version.
type MappingVersionInput struct {
	MappingInput
	Version int `path:"version" minimum:"1"`
}

func (in MappingVersionInput) String() string {
	return fmt.Sprintf("version %d of mapping set %q", in.Version, in.Name)
}

// head is a set as its versions say it.
func (s *server) head(all []mapping.Version) Mapping {
	m := Mapping{Name: all[0].Name, Kind: string(all[0].Kind), ERP: all[0].ERP, Plant: all[0].Plant, Latest: all[len(all)-1].Number}
	for _, v := range all {
		switch mapping.StateAt(v, all, s.o.Now()) {
		case mapping.Proposed:
			m.Waiting++
		case mapping.Effective:
			m.InForce, m.Since = v.Number, when(v.From)
		}
	}
	return m
}

func (s *server) version(v mapping.Version, all []mapping.Version) MappingVersion {
	return MappingVersion{
		Number: v.Number, State: string(mapping.StateAt(v, all, s.o.Now())), From: when(v.From), Base: v.Base, Note: v.Note, MadeBy: v.MadeBy, MadeAt: v.MadeAt,
		ProposedBy: v.ProposedBy, ProposedAt: when(v.ProposedAt), DecidedBy: v.DecidedBy, DecidedAt: when(v.DecidedAt), DecisionNote: v.DecisionNote,
		Acknowledged: v.Acknowledged, Returns: v.Returns, Rows: len(v.Content.Rows), Tests: len(v.Content.Tests),
	}
}

func (s *server) getMapping(ctx context.Context, in *MappingInput) (*struct{ Body MappingLife }, error) {
	all, steps, err := s.store.MappingVersions(ctx, in.Name)
	if err != nil {
		return nil, fail(err, fmt.Sprintf("mapping set %q", in.Name))
	}
	life := MappingLife{Mapping: s.head(all), Versions: []MappingVersion{}, Trail: []MappingStep{}}
	for _, v := range slices.Backward(all) {
		life.Versions = append(life.Versions, s.version(v, all))
	}
	for _, x := range steps {
		life.Trail = append(life.Trail, MappingStep{x.At, x.Number, x.Step, x.By, x.Note})
	}
	return one(life), nil
}

// oneVersion reads a version and its siblings.
func (s *server) oneVersion(ctx context.Context, in MappingVersionInput) (mapping.Version, []mapping.Version, error) {
	all, _, err := s.store.MappingVersions(ctx, in.Name)
	if err == nil && (in.Version < 1 || in.Version > len(all)) {
		err = store.ErrNotFound
	}
	if err != nil {
		return mapping.Version{}, nil, fail(err, in.String())
	}
	return all[in.Version-1], all, nil
}

type contentInput struct {
	MappingVersionInput
	Against int `query:"against" minimum:"0" doc:"Number of the version to compare with; default: the one in force, or for that one the one before"`
}

func (s *server) getMappingVersion(ctx context.Context, in *contentInput) (*struct{ Body MappingContent }, error) {
	v, all, err := s.oneVersion(ctx, in.MappingVersionInput)
	if err != nil {
		return nil, err
	}
	out := MappingContent{Mapping: s.head(all), Version: s.version(v, all), Faults: each(mapping.Check(v.Set, v.Content), toFault), Against: in.Against}
	out.Content = MappingBody{
		Scale: v.Content.Scale, Unlisted: v.Content.Unlisted, Rows: each(v.Content.Rows, func(r mapping.Row) MappingRow { return MappingRow(r) }),
		Tests: each(v.Content.Tests, func(t mapping.Test) MappingTest { return MappingTest(t) }),
	}
	if out.Against == 0 {
		out.Against = s.against(v, all, out.InForce)
	}
	if out.Against > len(all) {
		return nil, huma.Error404NotFound(fmt.Sprintf("there is no version %d of mapping set %q", out.Against, in.Name))
	}
	var before mapping.Content
	if out.Against > 0 {
		before = all[out.Against-1].Content
	}
	out.Changes = each(mapping.Diff(before, v.Content), func(c mapping.Change) MappingChange { return MappingChange(c) })
	d, err := s.store.LastDryRun(ctx, in.Name, in.Version)
	switch {
	case err == nil:
		run := dryRun(d.Dry)
		run.At, run.By = when(d.At), d.By
		out.DryRun = &run
	case !errors.Is(err, store.ErrNotFound):
		return nil, fail(err, "the dry run of "+in.MappingVersionInput.String())
	}
	return one(out), nil
}

// against is the version that a version is compared with when nobody says: the one in force, or the approved one before.
func (s *server) against(v mapping.Version, all []mapping.Version, inForce int) int {
	if inForce > 0 && inForce != v.Number && v.State != mapping.Approved {
		return inForce
	}
	for _, o := range slices.Backward(all[:v.Number-1]) {
		if o.State == mapping.Approved {
			return o.Number
		}
	}
	return 0
}

type exportInput struct {
	MappingVersionInput
	Format string `query:"format" enum:"yaml,csv" default:"yaml"`
}

func (s *server) exportMapping(ctx context.Context, in *exportInput) (*huma.StreamResponse, error) {
	v, _, err := s.oneVersion(ctx, in.MappingVersionInput)
	if err != nil {
		return nil, err
	}
	f := mapping.File{Set: v.Set, Content: v.Content}
	write, kind := f.YAML, "application/yaml"
	if in.Format == "csv" {
		write, kind = f.CSV, "text/csv; charset=utf-8; header=present"
	}
	raw, err := write()
	if err != nil {
		return nil, fail(err, in.MappingVersionInput.String())
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		c.SetHeader("Content-Type", kind)
		c.SetHeader("Content-Disposition", fmt.Sprintf("attachment; filename=%q", fmt.Sprintf("%s-%d.%s", v.Name, v.Number, in.Format)))
		c.BodyWriter().Write(raw)
	}}, nil
}

// MappingText is a set as a file.
type MappingText struct {
	Format string `json:"format" enum:"yaml,csv"`
	Text   string `json:"text" doc:"The file's content: the set, its rows and its tests"`
}

func (t MappingText) read() (f mapping.File, err error) {
	read := mapping.ReadYAML
	if t.Format == "csv" {
		read = mapping.ReadCSV
	}
	if f, err = read([]byte(t.Text)); err != nil {
		return f, huma.Error422UnprocessableEntity(err.Error())
	}
	return f, nil
}

// MappingFaults is what is wrong with a set.
type MappingFaults struct {
	Faults []MappingFault `json:"faults" nullable:"false"`
}

func (s *server) checkMapping(_ context.Context, in *struct{ Body MappingText }) (*struct{ Body MappingFaults }, error) {
	f, err := in.Body.read()
	if err != nil {
		return nil, err
	}
	return one(MappingFaults{each(mapping.Check(f.Set, f.Content), toFault)}), nil
}

type addMappingInput struct {
	Body struct {
		MappingText
		Base    int    `json:"base" minimum:"0" doc:"Number of the latest version that you have seen, 0 for a new set: refused when there is a later one"`
		Note    string `json:"note" minLength:"3" doc:"Why; it stays with the version"`
		Propose bool   `json:"propose,omitempty" doc:"Put it up for approval at once"`
	}
}

func (s *server) addMapping(ctx context.Context, in *addMappingInput) (*struct{ Body MappingVersion }, error) {
	f, err := in.Body.read()
	if err != nil {
		return nil, err
	}
	v, err := s.store.AddMappingVersion(ctx, f.Set, in.Body.Base, f.Content, caller(ctx), in.Body.Note, in.Body.Propose)
	if err != nil {
		return nil, mappingRefusal(err, fmt.Sprintf("mapping set %q", f.Name))
	}
	return one(s.version(v, []mapping.Version{v})), nil
}

type mappingNoteInput struct {
	MappingVersionInput
	Body struct {
		Note string `json:"note" minLength:"3" doc:"Why; it stays in the audit trail"`
	}
}

// changed takes a version further and answers with what it is now.
func (s *server) changed(ctx context.Context, in MappingVersionInput, step, note string, change func(v *mapping.Version, all []mapping.Version, now time.Time) error) (*struct{ Body MappingVersion }, error) {
	v, err := s.store.ChangeMapping(ctx, in.Name, in.Version, step, caller(ctx), note, change)
	if err != nil {
		return nil, mappingRefusal(err, in.String())
	}
	return one(s.version(v, []mapping.Version{v})), nil
}

func (s *server) proposeMapping(ctx context.Context, in *mappingNoteInput) (*struct{ Body MappingVersion }, error) {
	return s.changed(ctx, in.MappingVersionInput, "proposed", in.Body.Note, func(v *mapping.Version, _ []mapping.Version, now time.Time) error {
		return v.Propose(caller(ctx), now)
	})
}

func (s *server) rejectMapping(ctx context.Context, in *mappingNoteInput) (*struct{ Body MappingVersion }, error) {
	return s.changed(ctx, in.MappingVersionInput, "rejected", in.Body.Note, func(v *mapping.Version, _ []mapping.Version, now time.Time) error {
		return v.Reject(caller(ctx), in.Body.Note, now)
	})
}

// MappingTrial chooses the facts of a dry run.
type MappingTrial struct {
	Days    int    `json:"days,omitempty" minimum:"0" maximum:"400" doc:"Facts of the last so many days; 30 when 0"`
	Plant   string `json:"plant,omitempty"`
	OrderNo string `json:"order_no,omitempty"`
}

type dryRunInput struct {
	MappingVersionInput
	Body MappingTrial
}

func (s *server) dryRunMapping(ctx context.Context, in *dryRunInput) (*struct{ Body MappingDryRun }, error) {
	v, _, err := s.oneVersion(ctx, in.MappingVersionInput)
	if err != nil {
		return nil, err
	}
	d, err := s.try(ctx, v, in.Body)
	if err != nil {
		return nil, err
	}
	run := dryRun(d)
	run.At, run.By = when(s.o.Now()), caller(ctx)
	return one(run), nil
}

// try runs a version over recent facts and keeps what came of it.
func (s *server) try(ctx context.Context, v mapping.Version, in MappingTrial) (mapping.Dry, error) {
	if faults := mapping.Check(v.Set, v.Content); len(faults) > 0 {
		return mapping.Dry{}, mappingRefusal(&mapping.Faulty{Faults: faults}, "")
	}
	rules, err := s.store.MappingRules(ctx)
	if err != nil {
		return mapping.Dry{}, fail(err, "the mappings in force")
	}
	now := s.o.Now()
	since := now.AddDate(0, 0, -cmp.Or(in.Days, 30))
	trial := mapping.NewTrial(rules, v, now, since)
	truncated, err := s.store.Samples(ctx, store.TrialFilter{Since: since, Plant: cmp.Or(in.Plant, v.Plant), OrderNo: in.OrderNo}, trial.Add)
	if err != nil {
		return mapping.Dry{}, fail(err, "the facts for a dry run")
	}
	if err := s.store.OpenOrders(ctx, v.ERP, cmp.Or(in.Plant, v.Plant), trial.AddOrder); err != nil {
		return mapping.Dry{}, fail(err, "the work orders for a dry run")
	}
	d := trial.Result()
	d.Truncated = truncated
	if err := s.store.PutDryRun(ctx, d, caller(ctx)); err != nil {
		return d, fail(err, "the dry run")
	}
	return d, nil
}

func dryRun(d mapping.Dry) MappingDryRun {
	out := MappingDryRun{
		Set: d.Set, Version: d.Version, Against: d.Against, Since: d.Since, Facts: d.Facts, Changed: d.Changed, Stops: d.Stops, Goes: d.Goes, Sums: []MappingSum{},
		Examples: each(d.Examples, toExample), Stopped: each(d.Stopped, toExample), Truncated: d.Truncated,
		Orders: d.Orders, OrdersChanged: d.OrdersChanged, OrdersStop: d.OrdersStop,
		OrderExamples: each(d.OrderExamples, func(x mapping.OrderLine) MappingOrderLine { return MappingOrderLine(x) }),
		Warnings:      each(d.Warnings, func(w mapping.Warning) MappingWarning { return MappingWarning(w) }),
	}
	for _, x := range d.Sums {
		out.Sums = append(out.Sums, MappingSum{x.Unit, x.Facts, x.Counted.String(), x.UnitBefore, x.Before.String(), x.UnitAfter, x.After.String()})
	}
	return out
}

type approveMappingInput struct {
	MappingVersionInput
	Body struct {
		Note        string    `json:"note" minLength:"3" doc:"Why; it stays in the audit trail"`
		From        time.Time `json:"effective_from,omitempty" doc:"Facts that occurred at or after are said by it; absent: from now on. It may lie in the past: what was sent stays as it was sent"`
		Acknowledge []string  `json:"acknowledge,omitempty" doc:"The names of all warnings of the dry run"`
		Days        int       `json:"days,omitempty" minimum:"0" maximum:"400" doc:"Of the dry run that is made for it; 30 when 0"`
	}
}

// approveMapping makes the dry run itself: nobody approves what they have not been shown.
func (s *server) approveMapping(ctx context.Context, in *approveMappingInput) (*struct{ Body MappingVersion }, error) {
	v, all, err := s.oneVersion(ctx, in.MappingVersionInput)
	if err != nil {
		return nil, err
	}
	if v.State != mapping.Proposed { // says so before a dry run is made of it
		return nil, mappingRefusal(v.Approve(all, caller(ctx), "", time.Time{}, s.o.Now(), mapping.Dry{}, nil), in.MappingVersionInput.String())
	}
	dry, err := s.try(ctx, v, MappingTrial{Days: in.Body.Days})
	if err != nil {
		return nil, err
	}
	return s.changed(ctx, in.MappingVersionInput, "approved", in.Body.Note, func(v *mapping.Version, all []mapping.Version, now time.Time) error {
		return v.Approve(all, caller(ctx), in.Body.Note, in.Body.From, now, dry, in.Body.Acknowledge)
	})
}

type returnInput struct {
	MappingInput
	Body struct {
		Base int       `json:"base" minimum:"1" doc:"Number of the latest version that you have seen: refused when there is a later one"`
		To   int       `json:"to,omitempty" minimum:"0" doc:"Number of an approved version; absent: the one before the latest approved one"`
		Note string    `json:"note" minLength:"3" doc:"Why; it stays in the audit trail"`
		From time.Time `json:"effective_from,omitempty" doc:"Absent: when the version that it replaces came into force, so that this one counts at no time any more"`
	}
}

func (s *server) returnMapping(ctx context.Context, in *returnInput) (*struct{ Body MappingVersion }, error) {
	v, err := s.store.ReturnMapping(ctx, in.Name, in.Body.Base, in.Body.To, caller(ctx), in.Body.Note, in.Body.From)
	if err != nil {
		return nil, mappingRefusal(err, fmt.Sprintf("mapping set %q", in.Name))
	}
	return one(s.version(v, []mapping.Version{v})), nil
}

// saidAs is how a fact's posting is said; nil for as the fact says.
func (s *server) saidAs(ctx context.Context, factID int64) (*PostingMapping, error) {
	a, err := s.store.Applied(ctx, factID)
	if err != nil || a == nil || len(a.Values) == 0 {
		return nil, err
	}
	v := &PostingMapping{Item: a.Item, Unit: a.Unit, Factor: a.Factor, Reason: a.Reason, Site: a.Site,
		Values: each(a.Values, func(v mapping.Value) MappedValue { return MappedValue(v) })}
	for _, x := range a.Amounts {
		v.Amounts = append(v.Amounts, MappedAmount{string(x.Kind), x.Counted.String(), x.Posted.String()})
	}
	return v, nil
}
