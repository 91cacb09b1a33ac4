package realparts

import (
	"bytes"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const trytonModules = "company currency production production_routing production_work stock_lot purchase sale account_invoice_stock"

// trytonClient is the few lines of JSON-RPC that a seed needs. It is not the product's client, so that it can judge it.
type trytonClient struct {
	url, session string
	context      map[string]any
}

func (c *trytonClient) rpc(method string, params ...any) (json.RawMessage, error) {
	body, err := json.Marshal(map[string]any{"id": 1, "method": method, "params": params})
	if err != nil {
		return nil, fmt.Errorf("call Tryton's %s: %w", method, err)
	}
	req, err := http.NewRequest(http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("call Tryton's %s: %w", method, err)
	}
	req.Header.Set("Content-Type", "application/json")
	if c.session != "" {
		req.Header.Set("Authorization", "Session "+c.session)
	}
	client := http.Client{Timeout: 2 * time.Minute}
	resp, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call Tryton's %s: %w", method, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("call Tryton's %s: %w", method, err)
	}
	var answer struct{ Result, Error json.RawMessage }
	if resp.StatusCode != http.StatusOK || json.Unmarshal(text, &answer) != nil {
		return nil, fmt.Errorf("call Tryton's %s: %s: %.500s", method, resp.Status, text)
	}
	if answer.Error != nil {
		return nil, fmt.Errorf("call Tryton's %s: %.500s", method, answer.Error)
	}
	return answer.Result, nil
}

// login opens a session and takes over the user's preferences, which name the company.
func (c *trytonClient) login(user, password string) error {
	result, err := c.rpc("common.db.login", user, map[string]string{"password": password}, "en")
	if err != nil {
		return err
	}
	var who [2]json.RawMessage
	var key string
	if err := json.Unmarshal(result, &who); err != nil {
		return fmt.Errorf("log in to Tryton as %q: %w", user, err)
	}
	if err := json.Unmarshal(who[1], &key); err != nil {
		return fmt.Errorf("log in to Tryton as %q: %w", user, err)
	}
	c.session = base64.StdEncoding.EncodeToString([]byte(user + ":" + string(who[0]) + ":" + key))
	result, err = c.rpc("model.res.user.get_preferences", true, map[string]any{})
	if err != nil {
		return err
	}
	return json.Unmarshal(result, &c.context)
}

func (c *trytonClient) call(model, method string, args ...any) (json.RawMessage, error) {
	context := c.context
	if context == nil {
		context = map[string]any{}
	}
	return c.rpc("model."+model+"."+method, append(args, context)...)
}

func trytonDecimal(text string) map[string]string {
	return map[string]string{"__class__": "Decimal", "decimal": text}
}

func trytonDate(t time.Time) map[string]any {
	return map[string]any{"__class__": "date", "year": t.Year(), "month": int(t.Month()), "day": t.Day()}
}

func decodeTryton(t testing.TB, raw json.RawMessage, into any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		t.Fatalf("read Tryton's answer %.300s: %v", raw, err)
	}
}

func (e *TrytonServer) open(t testing.TB) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", e.DSN)
	if err != nil {
		t.Fatalf("open Tryton's database: %v", err)
	}
	return db
}

// make creates one record and returns its id.
func (e *TrytonServer) make(t testing.TB, model string, values map[string]any) int {
	t.Helper()
	var ids []int
	decodeTryton(t, e.Call(t, model, "create", []any{values}), &ids)
	return ids[0]
}

type fields = map[string]any

func create(rows ...any) []any { return []any{[]any{"create", rows}} }
func add(ids ...int) []any     { return []any{[]any{"add", ids}} }

// buildSeed makes the database from nothing: tables, modules, then the company, by the ERP's own interface.
func (e *TrytonServer) buildSeed(t testing.TB, config string) {
	t.Helper()
	execute(t, "pgx", e.DB.DSN("postgres"), "CREATE DATABASE "+trytonDatabase+" TEMPLATE template0 ENCODING 'UTF8'")
	password := WriteFile(t, filepath.Join(e.folder, "password"), trytonAdmin+"\n")
	admin := func(args ...string) {
		t.Helper()
		cmd := exec.Command(Need(t, "trytond-admin", "tryton-server"),
			append([]string{"-c", config, "-d", trytonDatabase, "--email", "admin@example.com"}, args...)...)
		// Tryton asks for the foreign keys table by table; PostgreSQL's usual plan for that takes a second each.
		cmd.Env = append(os.Environ(), "TZ=UTC", "TRYTONPASSFILE="+password,
			"PGOPTIONS=-c enable_nestloop=off -c jit=off")
		e.run(t, cmd)
	}
	admin("--all")
	admin(append([]string{"--activate-dependencies", "-u"}, strings.Fields(trytonModules)...)...)
	if err := e.Run(); err != nil {
		t.Fatalf("start trytond for its seed: %v\n%s", err, e.Output())
	}
	e.seed(t)
	e.Kill(syscall.SIGTERM)
	execute(t, "pgx", e.DB.DSN("postgres"), "ALTER DATABASE "+trytonDatabase+" RENAME TO "+trytonSeed)
}

// seed fills the empty database through the ERP's own interface.
func (e *TrytonServer) seed(t testing.TB) {
	t.Helper()
	e.IDs = map[string]int{}
	e.seedCompany(t)
	e.seedAccounts(t)
	e.seedItems(t)
	e.seedPlaces(t)
	e.seedRouting(t)
	e.seedStock(t)
	e.seedPartners(t)
	e.seedUser(t)
	e.admin = nil
}

func (e *TrytonServer) seedCompany(t testing.TB) {
	t.Helper()
	year := time.Now().UTC().Year()
	euro := e.make(t, "currency.currency", fields{"name": "Euro", "symbol": "EUR", "code": "EUR", "numeric_code": "978",
		"digits": 2, "rounding": trytonDecimal("0.01"),
		"rates": create(fields{"date": trytonDate(time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)), "rate": trytonDecimal("1")})})
	party := e.make(t, "party.party", fields{"name": "Ulm Gear Works"})
	company := e.make(t, "company.company", fields{"party": party, "currency": euro})
	e.Call(t, "res.user", "write", []int{1}, fields{"companies": add(company), "company": company})
	e.admin = nil // the company comes with the preferences of a new session
	e.IDs["company"] = company
}

// wizard runs a wizard with one form and one button.
func (e *TrytonServer) wizard(t testing.TB, name, form, button string, values fields) {
	t.Helper()
	run := func(method string, params ...any) json.RawMessage {
		t.Helper()
		result, err := e.admin.rpc("wizard."+name+"."+method, append(params, e.admin.context)...)
		if err != nil {
			t.Fatalf("run Tryton's wizard %s: %v", name, err)
		}
		return result
	}
	var session []any
	decodeTryton(t, run("create"), &session)
	run("execute", session[0], fields{}, session[1])
	run("execute", session[0], fields{form: values}, button)
	run("delete", session[0])
}

// seedAccounts makes the chart of accounts and this fiscal year, which invoices need.
func (e *TrytonServer) seedAccounts(t testing.TB) {
	t.Helper()
	e.Call(t, "res.user", "read", []int{1}, []string{"login"}) // opens the session that the wizard uses
	e.wizard(t, "account.create_chart", "account", "create_account", fields{"company": e.IDs["company"],
		"account_template": e.id(t, "account.account.template", []any{"parent", "=", nil})})
	account := func(kind string) int {
		return e.id(t, "account.account", []any{"type." + kind, "=", true}, []any{"company", "=", e.IDs["company"]})
	}
	e.make(t, "account.configuration", fields{"default_account_receivable": account("receivable"), "default_account_payable": account("payable")})
	e.IDs["expense"], e.IDs["revenue"] = account("expense"), account("revenue")
	kind := func(name string) int { return e.id(t, "ir.sequence.type", []any{"name", "=", name}) }
	year := time.Now().UTC().Year()
	for _, y := range []int{year, year + 1} { // a run over New Year's Eve
		moves := e.make(t, "ir.sequence", fields{"name": fmt.Sprint("Moves ", y), "sequence_type": kind("Account Move"), "company": e.IDs["company"]})
		invoices := e.make(t, "ir.sequence.strict", fields{"name": fmt.Sprint("Invoices ", y), "sequence_type": kind("Invoice"), "company": e.IDs["company"]})
		made := e.make(t, "account.fiscalyear", fields{"name": fmt.Sprint(y), "company": e.IDs["company"], "post_move_sequence": moves,
			"start_date": trytonDate(time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)), "end_date": trytonDate(time.Date(y, 12, 31, 0, 0, 0, 0, time.UTC)),
			"invoice_sequences": create(fields{"company": e.IDs["company"], "in_invoice_sequence": invoices, "in_credit_note_sequence": invoices,
				"out_invoice_sequence": invoices, "out_credit_note_sequence": invoices})})
		e.Call(t, "account.fiscalyear", "create_period", []int{made})
	}
}

func (e *TrytonServer) seedItems(t testing.TB) {
	t.Helper()
	unit := e.id(t, "product.uom", []any{"symbol", "=", "u"})
	kg := e.id(t, "product.uom", []any{"symbol", "=", "kg"})
	e.IDs["unit"], e.IDs["kg"] = unit, kg
	category := e.make(t, "product.category", fields{"name": "Stock goods", "accounting": true,
		"account_expense": e.IDs["expense"], "account_revenue": e.IDs["revenue"]})
	item := func(code, name string, uom int, cost string, producible bool, lots ...string) int {
		template := e.make(t, "product.template", fields{"name": name, "code": code, "default_uom": uom, "type": "goods",
			"list_price": trytonDecimal("20"), "cost_price_method": "fixed", "producible": producible, "account_category": category,
			"purchasable": !producible, "purchase_uom": uom, "salable": true, "sale_uom": uom, "lot_required": lots,
			"products": create(fields{"cost_price": trytonDecimal(cost)})})
		return e.id(t, "product.product", []any{"template", "=", template})
	}
	bom := func(name string, product int, inputs ...any) int {
		made := e.make(t, "production.bom", fields{"name": name, "inputs": create(inputs...),
			"outputs": create(fields{"product": product, "quantity": json.Number("1"), "uom": unit})})
		e.Call(t, "product.product", "write", []int{product}, fields{"boms": create(fields{"bom": made})})
		return made
	}
	line := func(product, uom int, quantity string) fields {
		return fields{"product": product, "quantity": json.Number(quantity), "uom": uom}
	}
	e.IDs["steel"] = item("RM-STEEL", "Steel bar", kg, "2", false)
	e.IDs["screw"] = item("RM-SCREW", "Screw M6", unit, "0.1", false)
	e.IDs["gear"] = item("FG-GEAR", "Gearbox", unit, "60", true)
	e.IDs["bom_FG-GEAR"] = bom("Gearbox", e.IDs["gear"], line(e.IDs["steel"], kg, "2.5"), line(e.IDs["screw"], unit, "8"))
	// Of these every piece must name its lot, wherever it goes.
	traced := []string{"supplier", "customer", "storage", "production"}
	e.IDs["alloy"] = item("RM-ALLOY", "Alloy billet", kg, "9", false, traced...)
	e.IDs["shaft"] = item("FG-SHAFT", "Shaft", unit, "80", true, traced...)
	e.IDs["bom_FG-SHAFT"] = bom("Shaft", e.IDs["shaft"], line(e.IDs["alloy"], kg, "1.5"))
}

func (e *TrytonServer) seedPlaces(t testing.TB) {
	t.Helper()
	warehouse := e.id(t, "stock.location", []any{"type", "=", "warehouse"})
	e.IDs["warehouse"] = warehouse
	e.IDs["storage"] = e.id(t, "stock.location", []any{"code", "=", "STO"})
	e.IDs["production"] = e.id(t, "stock.location", []any{"type", "=", "production"})
	e.IDs["scrap"] = e.make(t, "stock.location", fields{"name": "Scrap", "code": "SCRAP", "type": "lost_found"})
	e.IDs["rework"] = e.make(t, "stock.location", fields{"name": "Rework", "code": "REWORK", "type": "storage", "parent": e.IDs["storage"]})
	e.Call(t, "stock.location", "write", []int{warehouse}, fields{"code": "WH", "waste_locations": add(e.IDs["scrap"])})
	category := e.make(t, "production.work.center.category", fields{"name": "Assembly"})
	e.IDs["line"] = e.make(t, "production.work.center", fields{"name": "Line 1", "company": e.IDs["company"],
		"warehouse": warehouse, "category": category, "cost_method": "cycle", "cost_price": trytonDecimal("3")})
}

// seedRouting makes a routing of two operations for the gearbox; orders have it where they ask for it.
func (e *TrytonServer) seedRouting(t testing.TB) {
	t.Helper()
	var steps []any
	for i, name := range []string{"Mill", "Assemble"} {
		category := e.make(t, "production.work.center.category", fields{"name": name})
		e.make(t, "production.work.center", fields{"name": name + " 1", "company": e.IDs["company"], "parent": e.IDs["line"],
			"warehouse": e.IDs["warehouse"], "category": category, "cost_method": "hour", "cost_price": trytonDecimal("60")})
		steps = append(steps, fields{"sequence": 10 * (i + 1),
			"operation": e.make(t, "production.routing.operation", fields{"name": name, "work_center_category": category})})
	}
	e.IDs["routing"] = e.make(t, "production.routing", fields{"name": "Gearbox", "boms": add(e.IDs["bom_FG-GEAR"]), "steps": create(steps...)})
}

// seedPartners makes a supplier and a customer.
func (e *TrytonServer) seedPartners(t testing.TB) {
	t.Helper()
	for name, values := range map[string]fields{
		"supplier": {"name": "Steel Supplier AG", "code": "SUP-1"},
		"customer": {"name": "Pump Customer SE", "code": "CUST-1"},
	} {
		values["addresses"] = create(fields{"street": "Werkstrasse 1", "city": "Ulm", "postal_code": "89073"})
		e.IDs[name] = e.make(t, "party.party", values)
	}
}

func (e *TrytonServer) seedStock(t testing.TB) {
	t.Helper()
	heat := e.make(t, "stock.lot", fields{"number": "HEAT-1", "product": e.IDs["alloy"]})
	count := e.make(t, "stock.inventory", fields{"location": e.IDs["storage"], "date": trytonDate(time.Now().UTC()),
		"company": e.IDs["company"], "lines": create(
			fields{"product": e.IDs["steel"], "quantity": json.Number("100000")},
			fields{"product": e.IDs["alloy"], "lot": heat, "quantity": json.Number("10000")},
			fields{"product": e.IDs["screw"], "quantity": json.Number("500000")})})
	e.Call(t, "stock.inventory", "confirm", []int{count})
}

// seedUser makes the account that an integration is given: what it posts to, and nothing of administration.
func (e *TrytonServer) seedUser(t testing.TB) {
	t.Helper()
	names := []string{"Stock", "Production", "Purchase", "Sales", "Account"}
	var groups []int
	decodeTryton(t, e.Call(t, "res.group", "search", []any{[]any{"name", "in", names}}, 0, 9, nil), &groups)
	if len(groups) != len(names) {
		t.Fatalf("Tryton has %d of the groups %v", len(groups), names)
	}
	e.IDs["user"] = e.make(t, "res.user", fields{"name": "Linekeeper", "login": e.User, "password": e.Password,
		"groups": add(groups...), "companies": add(e.IDs["company"]), "company": e.IDs["company"]})
}
