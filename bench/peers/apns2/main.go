// Sends pushes with github.com/sideshow/apns2 and prints what they cost, as JSON.
//
//	apns2 PORT KEY.p8 PUSHES IN-FLIGHT
//
// The authority of the server's certificate is taken from the variable SSL_CERT_FILE.
package main

import (
	"fmt"
	"log"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/sideshow/apns2"
	"github.com/sideshow/apns2/token"
)

const payload = `{"aps":{"alert":"Helena miss you! come play!"},"M":{"jobId":"86edb3c3-6b5e-40dc-9f14-4ba831daf87c"}}`

func cpu() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		log.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func number(text string) int {
	value, err := strconv.Atoi(text)
	if err != nil {
		log.Fatal(err)
	}
	return value
}

func push(client *apns2.Client, n int) {
	notification := &apns2.Notification{
		DeviceToken: fmt.Sprintf("%064X", n),
		ApnsID:      fmt.Sprintf("0f8fad5b-d9cb-469f-a165-%012x", n),
		Topic:       "com.example.game",
		PushType:    apns2.PushTypeAlert,
		Payload:     []byte(payload),
	}
	response, err := client.Push(notification)
	if err != nil {
		log.Fatal(err)
	}
	if !response.Sent() {
		log.Fatalf("refused: %+v", response)
	}
}

func main() {
	key, err := token.AuthKeyFromFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	pushes, inFlight := number(os.Args[3]), number(os.Args[4])
	client := apns2.NewTokenClient(&token.Token{AuthKey: key, KeyID: "BENCH12345", TeamID: "BENCHTEAM1"})
	client.Host = "https://localhost:" + os.Args[1]
	push(client, 0) // connected from here on
	began, used := time.Now(), cpu()
	numbers := make(chan int, inFlight)
	var workers sync.WaitGroup
	for range inFlight {
		workers.Add(1)
		go func() {
			defer workers.Done()
			for n := range numbers {
				push(client, n)
			}
		}()
	}
	for n := 1; n <= pushes; n++ {
		numbers <- n
	}
	close(numbers)
	workers.Wait()
	perPush := float64((cpu() - used).Microseconds()) / float64(pushes)
	fmt.Printf("[[%.3f, %.0f]]\n", perPush, float64(pushes)/time.Since(began).Seconds())
}
