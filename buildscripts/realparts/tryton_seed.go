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

const trytonModules = "company currency production production_routing production_work stock_lot"

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
	e.seedItems(t)
	e.seedPlaces(t)
	e.seedStock(t)
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

func (e *TrytonServer) seedItems(t testing.TB) {
	t.Helper()
	unit := e.id(t, "product.uom", []any{"symbol", "=", "u"})
	kg := e.id(t, "product.uom", []any{"symbol", "=", "kg"})
	e.IDs["unit"], e.IDs["kg"] = unit, kg
	item := func(code, name string, uom int, cost string, producible bool) int {
		template := e.make(t, "product.template", fields{"name": name, "code": code, "default_uom": uom, "type": "goods",
			"list_price": trytonDecimal("20"), "cost_price_method": "fixed", "producible": producible,
			"products": create(fields{"cost_price": trytonDecimal(cost)})})
		return e.id(t, "product.product", []any{"template", "=", template})
	}
	steel := item("RM-STEEL", "Steel bar", kg, "2", false)
	screw := item("RM-SCREW", "Screw M6", unit, "0.1", false)
	gear := item("FG-GEAR", "Gearbox", unit, "60", true)
	bom := e.make(t, "production.bom", fields{"name": "Gearbox",
		"inputs": create(fields{"product": steel, "quantity": json.Number("2.5"), "uom": kg},
			fields{"product": screw, "quantity": json.Number("8"), "uom": unit}),
		"outputs": create(fields{"product": gear, "quantity": json.Number("1"), "uom": unit})})
	e.Call(t, "product.product", "write", []int{gear}, fields{"boms": create(fields{"bom": bom})})
	e.IDs["steel"], e.IDs["screw"], e.IDs["gear"], e.IDs["bom_FG-GEAR"] = steel, screw, gear, bom
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

func (e *TrytonServer) seedStock(t testing.TB) {
	t.Helper()
	count := e.make(t, "stock.inventory", fields{"location": e.IDs["storage"], "date": trytonDate(time.Now().UTC()),
		"company": e.IDs["company"], "lines": create(
			fields{"product": e.IDs["steel"], "quantity": json.Number("100000")},
			fields{"product": e.IDs["screw"], "quantity": json.Number("500000")})})
	e.Call(t, "stock.inventory", "confirm", []int{count})
}

// seedUser makes the account that an integration is given: stock and production, nothing else.
func (e *TrytonServer) seedUser(t testing.TB) {
	t.Helper()
	var groups []int
	decodeTryton(t, e.Call(t, "res.group", "search", []any{[]any{"name", "in", []string{"Stock", "Production"}}}, 0, 9, nil), &groups)
	if len(groups) != 2 {
		t.Fatalf("Tryton has %d of the groups Stock and Production", len(groups))
	}
	e.IDs["user"] = e.make(t, "res.user", fields{"name": "Linekeeper", "login": e.User, "password": e.Password,
		"groups": add(groups...), "companies": add(e.IDs["company"]), "company": e.IDs["company"]})
}
