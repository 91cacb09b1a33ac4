package s4double

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
)

var navsOf = map[string][]string{
	"A_ProductionOrder_2":      slices.Sorted(maps.Keys(navSets)),
	"ProdnOrdConf2":            {"to_ProdnOrdConfMatlDocItm"},
	"A_MaterialDocumentHeader": {"to_MaterialDocumentItem"},
}

// writeMetadata describes a service in EDMX, as far as the double has it: types with lengths and scales, sets, navigation.
func writeMetadata(w http.ResponseWriter, service string) {
	var types, sets strings.Builder
	for _, set := range setsOf[service] {
		s := Schemas[set]
		fmt.Fprintf(&types, "<EntityType Name=%q sap:content-version=\"1\">", s.Name)
		for _, f := range s.fields {
			fmt.Fprintf(&types, "<Property Name=%q %s/>", f.name, f.edm())
		}
		for _, nav := range navsOf[set] {
			fmt.Fprintf(&types, "<NavigationProperty Name=%q/>", nav)
		}
		types.WriteString("</EntityType>")
		fmt.Fprintf(&sets, "<EntitySet Name=%q EntityType=%q/>", set, service+"."+s.Name)
	}
	w.Header().Set("Content-Type", "application/xml")
	fmt.Fprintf(w, `<?xml version="1.0" encoding="utf-8"?><edmx:Edmx Version="1.0" xmlns:edmx="http://schemas.microsoft.com/ado/2007/06/edmx" xmlns:sap="http://www.sap.com/Protocols/SAPData">`+
		`<edmx:DataServices><Schema Namespace=%q xmlns="http://schemas.microsoft.com/ado/2008/09/edm">%s<EntityContainer Name="%s_Entities">%s</EntityContainer></Schema></edmx:DataServices></edmx:Edmx>`,
		service, types.String(), service, sets.String())
}

func (f field) edm() string {
	switch f.kind {
	case "decimal":
		return fmt.Sprintf(`Type="Edm.Decimal" Precision="%d" Scale="%d"`, f.length, f.scale)
	case "date":
		return `Type="Edm.DateTime" Precision="0" sap:display-format="Date"`
	case "time":
		return `Type="Edm.Time" Precision="0"`
	case "bool":
		return `Type="Edm.Boolean"`
	case "guid":
		return `Type="Edm.Guid"`
	case "int":
		return `Type="Edm.Byte"`
	}
	if f.length == 9999 {
		return `Type="Edm.String"`
	}
	return fmt.Sprintf(`Type="Edm.String" MaxLength="%d"`, f.length)
}
