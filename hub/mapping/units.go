package mapping

import (
	"fmt"
	"math/big"
	"strings"
)

// unitInfo is what is known of a unit: its dimension and how many of the dimension's first unit one is. free units have no
// size of their own: a box, a roll, a month.
type unitInfo struct {
	dimension string
	size      *big.Rat
	free      bool
}

// units are the codes of UN/ECE Recommendation 20, and the package codes of Recommendation 21, that plants and their partners
// use. A code that is not here is a fault until its row names a dimension. Temperatures have no factor to one another, so that
// each is a dimension of its own.
var units = func() map[string]unitInfo {
	all := map[string]unitInfo{}
	for line := range strings.Lines(`
		count: C62 1 H87 1 EA 1 NAR 1 PR 2 NPR 2 DZN 12 TPR 20 CEN 100 GRO 144 MIL 1000
		count: SET * NMP * RO * ST * BG * LEF * XBX * XPX * XCT * XBG * XPK * XRO * XDR * XCR * XPA * XPC * XBA * XCA * XST *
		mass: KGM 1 GRM 1/1000 MGM 1/1000000 MC 1/1000000000 HGM 1/10 DJ 1/100 DTN 100 TNE 1000 KTN 1000000
		mass: LBR 0.45359237 ONZ 0.028349523125 STN 907.18474 LTN 1016.0469088 CWA 45.359237 CWI 50.80234544
		volume: MTQ 1 LTR 1/1000 MLT 1/1000000 CLT 1/100000 DLT 1/10000 HLT 1/10 MAL 1000 DMQ 1/1000 CMQ 1/1000000 MMQ 1/1000000000
		volume: FTQ 0.028316846592 INQ 0.000016387064 YDQ 0.764554857984 GLL 0.003785411784 GLI 0.00454609 BLL 0.158987294928
		volume: OZA 295735295625/10000000000000000 OZI 284130625/10000000000000 PTL 0.000473176473 QTL 0.000946352946
		length: MTR 1 DMT 1/10 CMT 1/100 MMT 1/1000 4H 1/1000000 KMT 1000 INH 0.0254 FOT 0.3048 YRD 0.9144 SMI 1609.344
		area: MTK 1 DMK 1/100 CMK 1/10000 MMK 1/1000000 KMK 1000000 HAR 10000 INK 0.00064516 FTK 0.09290304 YDK 0.83612736
		time: SEC 1 C26 1/1000 MIN 60 HUR 3600 DAY 86400 WEE 604800 MON * ANN *
		energy: JOU 1 KJO 1000 3B 1000000 GV 1000000000 WHR 3600 KWH 3600000 MWH 3600000000
		power: WTT 1 KWT 1000 MAW 1000000
		pressure: PAL 1 KPA 1000 MPA 1000000 BAR 100000
		celsius: CEL 1
		kelvin: KEL 1
		fahrenheit: FAH 1
		current: AMP 1
		voltage: VLT 1
		resistance: OHM 1
		frequency: HTZ 1
		share: P1 1
		service: E48 1 1I *
		agreed: ZZ *`) {
		dimension, list, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok {
			continue
		}
		fields := strings.Fields(list)
		for i := 0; i < len(fields); i += 2 {
			u := unitInfo{dimension: dimension, free: fields[i+1] == "*"}
			if !u.free {
				var err error
				if u.size, err = Ratio(fields[i+1]); err != nil {
					panic(fmt.Sprintf("unit %s: %v", fields[i], err))
				}
			}
			all[fields[i]] = u
		}
	}
	return all
}()

// standard is the factor between two units that follows from what they are, nil where nothing follows.
func standard(from, to unitInfo) *big.Rat {
	if from.free || to.free || from.size == nil || to.size == nil || from.dimension != to.dimension {
		return nil
	}
	return new(big.Rat).Quo(from.size, to.size)
}
